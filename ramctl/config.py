"""Defaults from `ramctl.toml` and from the environment; flags win over both."""

import os
import tomllib
from collections.abc import Callable, Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ramctl.errors import UsageProblem

FILE_NAME = "ramctl.toml"
COMMON = "common"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """What follows the complaint about a word that is not known: the nearest one that is."""
    near = get_close_matches(word, sorted(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def load_defaults(
    command: str,
    options: Collection[str],
    commands: Collection[str],
    options_of_all: Callable[[], Collection[str]],
) -> dict[str, Any]:
    """A command's defaults from the configuration files, by parameter name.

    `[common]` applies to every command that has the option. Raises UsageProblem for a file that
    cannot be read, a table that is none of `commands`, and an option that the command, or for
    `[common]` every command, does not have; and for a variable `RAMCTL_<COMMAND>_...` that names
    no option.
    """
    merged: dict[str, Any] = {}
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    for path in (Path(home) / "ramctl" / FILE_NAME, Path(FILE_NAME)):  # the last one wins
        if not path.is_file():
            continue
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageProblem(f"{path}: {error}") from error
        for name in tables.keys() - {command, COMMON, *commands}:
            hint = did_you_mean(name, {COMMON, *commands})
            raise UsageProblem(f"{path}: {name!r} is neither [{COMMON}] nor a command{hint}")
        for table in (COMMON, command):
            values = tables.get(table, {})
            if not isinstance(values, dict):
                raise UsageProblem(f"{path}: {table} is not a table")
            values = {key.replace("-", "_"): value for key, value in values.items()}
            for name in sorted(values.keys() - set(options)):
                known = options_of_all() if table == COMMON else options
                if name not in known:
                    hint = did_you_mean(name, known)
                    raise UsageProblem(f"{path}: [{table}] has no option {name!r}{hint}")
            merged |= {name: value for name, value in values.items() if name in options}
    variables = {name for option in options for name in environment_names(command, option)}
    for name in sorted(os.environ.keys() - variables):
        if name.startswith(f"RAMCTL_{command.upper()}_"):
            hint = did_you_mean(name, variables)
            raise UsageProblem(f"{name}: {command} has no such option{hint}")
    return merged


def environment_names(command: str, option: str) -> list[str]:
    """The variables that set an option: `RAMCTL_TAG_MODEL` before `RAMCTL_MODEL`."""
    name = option.upper()
    names = [f"RAMCTL_{command.upper()}_{name}", f"RAMCTL_{name}"]
    return [name for name in names if name != "RAMCTL_MODELS"]  # which is a folder
