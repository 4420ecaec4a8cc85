#!/usr/bin/env python3
"""Brings the generated parts of the documents up to date; with --check, only says what is not.

A generated part stands between `<!-- NAME -->` and `<!-- end -->`. NAME is `commands` (their table)
or `codes` (of the reject codes).
"""

import re
import sys
from pathlib import Path

from venv_python import ROOT, use_venv

use_venv()

from ramctl.cli import COMMANDS
from ramctl.errors import REJECT_CODES

BLOCK = re.compile(r"(<!-- (commands|codes) -->\n).*?(<!-- end -->)", re.DOTALL)


def documents() -> list[Path]:
    """The project's Markdown files: those at the root, and those in its own folders."""
    folders = [ROOT / name for name in ("ramctl", "scripts", "tests")]
    inner = [path for folder in folders for path in folder.rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *inner])


def command_table() -> str:
    """The commands with their summaries."""
    rows = [(f"`{name}`", item.short_help.rstrip(".")) for name, item in COMMANDS.items()]
    return table(("command", "what it does"), rows)


def code_table() -> str:
    """The reject codes with their meanings."""
    return table(("code", "meaning"), [(f"`{code}`", text) for code, text in REJECT_CODES.items()])


def table(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    lines = [" | ".join(row) for row in [header, *rows]]
    lines = [f"| {line} |" for line in lines]
    return "\n".join([lines[0], "|---|---|", *lines[1:]]) + "\n"


def updated(text: str) -> str:
    """The document with every generated part made anew."""

    def replace(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        return start + {"commands": command_table, "codes": code_table}[name]() + end

    return BLOCK.sub(replace, text)


def main() -> int:
    stale = []
    for path in documents():
        old = path.read_text("utf-8")
        new = updated(old)
        if old != new:
            stale.append(path)
            if "--check" not in sys.argv[1:]:
                path.write_text(new, "utf-8")
    if "--check" not in sys.argv[1:]:
        return 0
    for path in stale:
        print(
            f"{path.relative_to(ROOT)} is out of date: run scripts/build_docs.py", file=sys.stderr
        )
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
