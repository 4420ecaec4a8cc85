"""Defaults from `ramctl.toml` and from the environment; flags win over both."""

import os
import tomllib
from collections.abc import Callable, Collection
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import user_folder

FILE_NAME = "ramctl.toml"
HERE = f"./{FILE_NAME}"
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
    may_set_here: Callable[[str, Any], bool],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A command's defaults by parameter name: those of the user's file, and of the folder's.

    The folder's may have come with it, from anybody: it sets only what `may_set_here` is true of,
    and is not read where it is the user's own. `[common]` applies to every command that has the
    option. Raises UsageProblem for a file that cannot be read, a table that is none of `commands`,
    and an option that the command, or for `[common]` every command, does not have; and for a
    variable `RAMCTL_<COMMAND>_...` that names no option.
    """
    user, here = Path(), Path(FILE_NAME)
    with suppress(RunProblem):  # without a home there is none
        user = user_folder("XDG_CONFIG_HOME", ".config") / FILE_NAME
    read: list[dict[str, Any]] = []
    is_same = user.is_file() and here.is_file() and user.samefile(here)
    for path, shown in ((user, str(user)), (here, HERE)):
        read.append({})
        if not path.is_file() or (shown == HERE and is_same):
            continue
        try:
            tables = tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsageProblem(f"{shown}: {error}") from error
        for name in tables.keys() - {command, COMMON, *commands}:
            hint = did_you_mean(name, {COMMON, *commands})
            raise UsageProblem(f"{shown}: {name!r} is neither [{COMMON}] nor a command{hint}")
        for table in (COMMON, command):
            values = tables.get(table, {})
            if not isinstance(values, dict):
                raise UsageProblem(f"{shown}: {table} is not a table")
            values = {key.replace("-", "_"): value for key, value in values.items()}
            for name in sorted(values.keys() - set(options)):
                known = options_of_all() if table == COMMON else options
                if name not in known:
                    hint = did_you_mean(name, known)
                    raise UsageProblem(f"{shown}: [{table}] has no option {name!r}{hint}")
            values = {name: value for name, value in values.items() if name in options}
            for name, value in values.items() if shown == HERE else ():
                if not may_set_here(name, value):
                    raise UsageProblem(
                        f"{HERE}: [{table}] {name}: only the user may set this (it writes or "
                        "deletes files, undoes decisions or contacts a host): give "
                        f"--{name.replace('_', '-')}, or move the line to {user}"
                    )
            read[-1] |= values
    variables = {name for option in options for name in environment_names(command, option)}
    for name in sorted(os.environ.keys() - variables):
        if name.startswith(f"RAMCTL_{command.upper()}_"):
            hint = did_you_mean(name, variables)
            raise UsageProblem(f"{name}: {command} has no such option{hint}")
    return read[0], read[1]


def environment_names(command: str, option: str) -> list[str]:
    """The variables that set an option: `RAMCTL_TAG_MODEL` before `RAMCTL_MODEL`."""
    name = option.upper()
    names = [f"RAMCTL_{command.upper()}_{name}", f"RAMCTL_{name}"]
    return [name for name in names if name != "RAMCTL_MODELS"]  # which is a folder
