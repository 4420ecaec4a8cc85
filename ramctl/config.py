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
    `[common]` every command, does not have.
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
        common = _table(path, tables, COMMON)
        of_command = _table(path, tables, command)
        _require_known(path, command, of_command, options)
        if common.keys() - set(options):
            _require_known(path, COMMON, common, {*options, *options_of_all()})
        merged |= {name: value for name, value in common.items() if name in options} | of_command
    return merged


def _require_known(path: Path, table: str, names: Collection[str], known: Collection[str]) -> None:
    for name in sorted(set(names) - set(known)):
        hint = did_you_mean(name, known)
        raise UsageProblem(f"{path}: [{table}] has no option {name!r}{hint}")


def require_known_variables(command: str, options: Collection[str]) -> None:
    """UsageProblem for a variable `RAMCTL_<COMMAND>_...` that names no option."""
    known = {name for option in options for name in environment_names(command, option)}
    prefix = f"RAMCTL_{command.upper()}_"
    for name in sorted(name for name in os.environ if name.startswith(prefix)):
        if name not in known:
            raise UsageProblem(f"{name}: {command} has no such option{did_you_mean(name, known)}")


def _table(path: Path, tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageProblem(f"{path}: {name} is not a table")
    return {key.replace("-", "_"): value for key, value in table.items()}


def environment_names(command: str, option: str) -> list[str]:
    """The variables that set an option: `RAMCTL_TAG_MODEL` before `RAMCTL_MODEL`."""
    name = option.upper()
    return [f"RAMCTL_{command.upper()}_{name}", f"RAMCTL_{name}"]
