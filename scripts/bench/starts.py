#!/usr/bin/env python3
"""Measure the core seconds of each command until its first result, and of its imports.

    scripts/bench/starts.py
    scripts/bench/starts.py tag parse --rounds 9
    scripts/bench/starts.py --tree tag

One photo, one caption or one record each, with all files in the disk cache and Python's bytecode
written. Beside it the bare import of the libraries that the command cannot do without.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()

from measuring import ENVIRONMENT, children_core_s

DATA = ROOT / "tests" / "data"
PHOTO, CAPTION = "pictures/cat.jpg", "{tmp}/caption.jsonl"
PHOTOS, NUMBERS = "import numpy, PIL.Image, onnxruntime", "import numpy"
SPACY, TORCH = "import spacy", "import torch"
# Arguments, and what is imported for comparison. parse comes first: others read what it writes.
COMMANDS = {
    "--version": ("--version", "pass"),
    "tag --help": ("tag --help", "import click"),
    "parse": (f"parse -q {CAPTION} -o {{tmp}}/parsed.jsonl", SPACY),
    "tag": (f"tag -q --embedding {PHOTO} -o {{tmp}}/found.jsonl", PHOTOS),
    "tag --labels": (f"tag -q --labels {{tmp}}/words.txt {PHOTO}", PHOTOS),
    "search": ("search -q {tmp}/found.jsonl an old building", NUMBERS),
    "export": ("export -q -f csv {tmp}/found.jsonl", NUMBERS),
    "import": (f"import -q {PHOTO}", "import PIL.Image"),
    "eval": ("eval -q {tmp}/parsed.jsonl --truth {tmp}/parsed.jsonl", NUMBERS),
    "generate": ("generate -q --captions 0 {tmp}/parsed.jsonl", TORCH),
    "clean": ("clean -q --min-regions 1 {tmp}/parsed.jsonl", TORCH),
    "convert --info": ("convert --info mini", NUMBERS),
    "doctor --models": ("doctor --models", NUMBERS),
}
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")


def python(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Core seconds of an interpreter that runs in the tests' data, and what it said."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = children_core_s()
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=DATA, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(arguments)}: {done.stderr[-300:]}")
    return children_core_s() - before, done


def tree(arguments: list[str], least_ms: float) -> None:
    """Print the modules that a command imports, each with its milliseconds and its own."""
    lines = python("-X", "importtime", "-m", "ramctl", *arguments)[1].stderr.splitlines()
    found = [match for match in map(_LINE.match, lines) if match]
    # An import is told when it ends: what it imports comes before it.
    for match in reversed(found):
        own_us, all_us, indent, name = match.groups()
        if int(all_us) >= 1000 * least_ms:
            print(f"{int(all_us) / 1000:7.0f} {int(own_us) / 1000:6.0f} {indent}{name}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help="[default: all]")
    parser.add_argument("--tree", choices=COMMANDS, metavar="COMMAND", help="its imports")
    parser.add_argument("--least", type=float, default=10, help="of --tree: ms of an import shown")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = "tabby cat\nespresso\ndahlia\npagoda\n"
        (Path(folder) / "words.txt").write_text(words)
        first = (DATA / "captions.jsonl").read_text("utf-8").splitlines()[0]
        (Path(folder) / "caption.jsonl").write_text(first + "\n")
        run = {name: line.format(tmp=folder).split() for name, (line, _) in COMMANDS.items()}
        for name in ("parse", "tag"):
            python("-m", "ramctl", *run[name])
        if given.tree:
            print("     ms    own  module")
            tree(run[given.tree], given.least)
            return 0
        print(f"load {os.getloadavg()[0]:.1f}; core seconds, median of {given.rounds} (spread)")
        print(f"{'command':16} {'start':>16} {'bare import':>12} {'more':>6} {'ratio':>6}")
        for name in given.commands or COMMANDS:
            bare = COMMANDS[name][1]
            taken: list[list[float]] = [[], []]
            for number in range(given.rounds + 1):  # the first one warms the cache
                pair = python("-m", "ramctl", *run[name])[0], python("-c", bare)[0]
                for times, one in zip(taken, pair, strict=True):
                    times.extend([one] * bool(number))
            ours, theirs = map(statistics.median, taken)
            spread = f"{ours:.2f} ({min(taken[0]):.2f}-{max(taken[0]):.2f})"
            more, ratio = f"{ours - theirs:+.2f}", f"{ours / theirs:.1f}"
            print(f"{name:16} {spread:>16} {theirs:12.2f} {more:>6} {ratio:>6}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
