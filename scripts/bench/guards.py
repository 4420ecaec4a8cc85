#!/usr/bin/env python3
"""What locks, syncs and limits cost `ramctl parse` and `tag`: each with and without, in turns.

    scripts/bench/guards.py [--records 20000] [--photos 400] [--rounds 7] [CAPTIONS.jsonl...]

Without: no locks, no fsync, no limits of a line's bytes and levels, of a photo's bytes and time.
Prints the medians of core and wall seconds of whole commands, start-up included, and what is lost;
exits with 1 where that is more than 2 % of the core time. (Wall time has the waiting for the disk
in it, on a machine that does nothing else.)
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()

from measuring import ENVIRONMENT, children_core_s

MOST_LOST = 0.02
BARE, GUARDED = "--bare", "--guarded"


def run(words: list[str], *, bare: bool) -> None:
    """A command in this process, without its guards where it is to be bare."""
    from ramctl.cli import main as run_command

    if bare:
        remove_guards()
    run_command(words)


def remove_guards() -> None:
    """Put nothing in the place of each guard of this process."""
    modules = ("photos.decoding", "photos.limits", "records.files", "records.jsonl")
    guarded: list[Any] = [import_module(f"ramctl.{name}") for name in modules]
    decoding, limits, files, jsonl = guarded

    @contextmanager
    def no_lock(*arguments: object) -> Iterator[None]:
        yield

    def plain_read(name: str, base: Path = Path(), *, max_bytes: int = 0) -> bytes:
        return (base / name).read_bytes()

    os.fsync = lambda fd: None
    files.held = no_lock
    jsonl.bounded_lines = iter
    jsonl.require_writable = lambda fields, content: None
    decoding.read_photo = plain_read
    decoding.in_time = lambda decode, time_left: decode()
    limits.room_for = no_lock


def seconds(words: list[str], folder: Path, *, bare: bool) -> tuple[float, float]:
    """Wall and core seconds of a command that writes `out.jsonl` anew."""
    for path in folder.glob("out.jsonl*"):
        path.unlink()
    script = [str(Path(__file__).resolve()), BARE if bare else GUARDED]
    before, start = children_core_s(), time.perf_counter()
    subprocess.run([sys.executable, *script, *words], check=True, cwd=folder, env=ENVIRONMENT)
    return time.perf_counter() - start, children_core_s() - before


def write_captions(path: Path, files: list[Path], number: int) -> None:
    """As many records as asked for, no two of which have the same text."""
    from soak import _captions

    texts = [text for file in files for text in _captions(file)] or ["A dog on a lawn ."]
    with path.open("w", encoding="utf-8") as stream:
        for index, text in enumerate(itertools.islice(itertools.cycle(texts), number)):
            row = {"image": f"{index}.jpg", "captions": [f"{text} {index}"]}
            stream.write(json.dumps(row) + "\n")


def copy_photos(folder: Path, number: int) -> None:
    """The photos of the tests, again and again."""
    folder.mkdir()
    sources = sorted((ROOT / "tests" / "data" / "photos").glob("*.jpg"))
    for index, source in enumerate(itertools.islice(itertools.cycle(sources), number)):
        shutil.copy(source, folder / f"{index:06}.jpg")


def main() -> int:
    if sys.argv[1:2] in ([BARE], [GUARDED]):
        run(sys.argv[2:], bare=sys.argv[1] == BARE)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="captions for parse")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_captions(folder / "in.jsonl", given.files, given.records)
        copy_photos(folder / "photos", given.photos)
        commands = {
            "parse": ["parse", "-q", "in.jsonl", "-o", "out.jsonl"],
            "tag": ["tag", "-q", "-R", "photos", "-o", "out.jsonl", "-j", "1"],
        }
        for command, words in commands.items():
            taken: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for _ in range(given.rounds):
                for bare in (True, False):
                    taken[bare].append(seconds(words, folder, bare=bare))
            wall, core = (
                [statistics.median(one[what] for one in taken[bare]) for bare in (True, False)]
                for what in (0, 1)
            )
            lost = core[1] / core[0] - 1
            worst = max(worst, lost)
            print(
                f"{command}: core {core[0]:.2f} s without, {core[1]:.2f} s with guards: "
                f"{lost:+.1%} (at most {MOST_LOST:.0%}); wall {wall[0]:.2f} s, {wall[1]:.2f} s: "
                f"{wall[1] / wall[0] - 1:+.1%}",
                flush=True,
            )
    return int(worst > MOST_LOST)


if __name__ == "__main__":
    sys.exit(main())
