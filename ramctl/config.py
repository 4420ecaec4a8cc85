"""Defaults from `ramctl.toml` and from the environment; flags win over both."""

import os
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ramctl.errors import UsageProblem

FILE_NAME = "ramctl.toml"
COMMON = "common"


def config_files() -> list[Path]:
    """The configuration files that exist, by precedence."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    candidates = [Path(FILE_NAME), Path(home) / "ramctl" / FILE_NAME]
    return [path for path in candidates if path.is_file()]


def load_defaults(command: str, options: Collection[str]) -> dict[str, Any]:
    """A command's defaults from the configuration files, by parameter name.

    `[common]` applies to every command that has the option. Raises UsageProblem for a file that
    cannot be read, and for an option in a command's own table that the command does not have.
    """
    merged: dict[str, Any] = {}
    for path in reversed(config_files()):
        tables = _read(path)
        common = _table(path, tables, COMMON)
        own = _table(path, tables, command)
        unknown = sorted(own.keys() - set(options))
        if unknown:
            raise UsageProblem(f"{path}: [{command}] has no option {unknown[0]!r}")
        merged |= {name: value for name, value in common.items() if name in options} | own
    return merged


def _table(path: Path, tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UsageProblem(f"{path}: {name} is not a table")
    return {key.replace("-", "_"): value for key, value in table.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"{path}: {error}") from error


def environment_names(command: str, option: str) -> list[str]:
    """The variables that set an option: `RAMCTL_TAG_MODEL` before `RAMCTL_MODEL`."""
    name = option.upper()
    return [f"RAMCTL_{command.upper()}_{name}", f"RAMCTL_{name}"]
