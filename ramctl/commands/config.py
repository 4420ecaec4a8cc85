"""Defaults of options from the user's file and the environment; the command line wins."""

import os
import tomllib
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from ramctl.errors import RunProblem, UsageProblem, did_you_mean
from ramctl.records.files import user_folder

FILE_NAME = "ramctl.toml"
COMMON = "common"


def load_defaults(
    command: str,
    options: Collection[str],
    inherited: Collection[str],
    commands: Collection[str],
    all_options: Callable[[], Collection[str]],
) -> dict[str, Any]:
    """The defaults of a command's options from the user's file.

    `[common]` sets the options that are `inherited`. Raises UsageProblem for a file that cannot be
    read, a table that is no command's, an option that the command (for `[common]`: every command)
    lacks, and a variable `RAMCTL_<COMMAND>_...` that names no option.
    """
    tables, name = {}, ""
    with suppress(RunProblem):  # without a home there is none
        path = user_folder("XDG_CONFIG_HOME", ".config") / FILE_NAME
        tables, name = _read_tables(path), str(path)
    for unknown in sorted(tables.keys() - {COMMON, *commands}):
        hint = did_you_mean(unknown, {COMMON, *commands})
        raise UsageProblem(f"{name}: {unknown!r} is neither [{COMMON}] nor a command{hint}")
    common, particular = (_settings(tables, table, name) for table in (COMMON, command))
    _require_known(common, all_options() if common else (), f"{name}: [{COMMON}]")
    _require_known(particular, options, f"{name}: [{command}]")
    variables = {name for option in options for name in environment_names(command, option)}
    for variable in sorted(os.environ.keys() - variables):
        if variable.startswith(f"RAMCTL_{command.upper()}_"):
            hint = did_you_mean(variable, variables)
            raise UsageProblem(f"{variable}: {command} has no such option{hint}")
    return {key: value for key, value in common.items() if key in inherited} | particular


def _read_tables(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageProblem(f"{path}: {error}") from error


def _settings(tables: dict[str, Any], table: str, name: str) -> dict[str, Any]:
    """A table of a file, keyed by parameter name."""
    settings = tables.get(table, {})
    if not isinstance(settings, dict):
        raise UsageProblem(f"{name}: {table} is not a table")
    return {key.replace("-", "_"): value for key, value in settings.items()}


def _require_known(settings: dict[str, Any], known: Collection[str], place: str) -> None:
    for option in sorted(settings.keys() - set(known)):
        raise UsageProblem(f"{place} has no option {option!r}{did_you_mean(option, known)}")


def environment_names(command: str, option: str) -> list[str]:
    """The variables that set an option, the winning one first: RAMCTL_TAG_MODEL, RAMCTL_MODEL."""
    name = option.upper()
    names = [f"RAMCTL_{command.upper()}_{name}", f"RAMCTL_{name}"]
    return [name for name in names if name != "RAMCTL_MODELS"]  # which is a folder
