"""Defaults of options from the user's own file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ramctl.commands.command import Command
from ramctl.errors import RunProblem, UsageProblem

FILE_NAME = "ramctl.toml"
COMMON = "common"  # the table that all commands inherit


def default_map(commands: Mapping[str, Command]) -> dict[str, dict[str, Any]]:
    """The values that the user's file gives the parameters of each command, as click takes them.

    Raises UsageProblem for a file that cannot be read, and for a table or an option in it that no
    command has.
    """
    from ramctl.records.files import user_folder

    try:
        path = user_folder("XDG_CONFIG_HOME", ".config") / FILE_NAME
    except RunProblem:  # no home
        return {}
    return _read(path, commands) if path.is_file() else {}


def _read(path: Path, commands: Mapping[str, Command]) -> dict[str, dict[str, Any]]:
    import tomllib  # few have such a file

    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageProblem(f"{path}: {error}") from error
    options = {name: command.options for name, command in commands.items()}
    known = {**options, COMMON: set().union(*options.values())}
    for table, settings in tables.items():
        if table not in known or not isinstance(settings, dict):
            raise UsageProblem(f"{path}: {table!r} is neither [{COMMON}] nor a command")
        tables[table] = {key.replace("-", "_"): value for key, value in settings.items()}
        for key in tables[table].keys() - known[table]:
            raise UsageProblem(f"{path}: [{table}] has no option {key!r}")
    defaults: dict[str, dict[str, Any]] = {name: {} for name in commands}
    for name, declared in options.items():
        inherited = {key for key, item in declared.items() if not isinstance(item.envvar, str)}
        common = {key: value for key, value in tables.get(COMMON, {}).items() if key in inherited}
        for key, value in (common | tables.get(name, {})).items():
            # As the command line gives it; a list is for an option that may be repeated.
            text = value if isinstance(value, list) else str(value)
            defaults[name][declared[key].name or ""] = text
    return defaults
