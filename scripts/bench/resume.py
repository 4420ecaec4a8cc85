#!/usr/bin/env python3
"""Measures what `--resume` of a finished run costs by the record: memory, start, and skipping.

    scripts/bench/resume.py --records 1000000

Times are of this process's CPU, against the floor: reading the lines of the state as JSON.
"""

import argparse
import sys
import tempfile
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import orjson
from measuring import core_seconds

from ramctl.records.state import ResumeState

MOST_BYTES = 40.0  # of memory a record
MOST_SECONDS = 3.0  # for the start with a million
LINE = 100  # bytes of a record in the output


def photo(number: int) -> str:
    return f"/data/photos/{number // 1000:05}/{number:09}.jpg"


def write_state(path: Path, number: int) -> None:
    """The state of a finished run over so many photos."""
    state = ResumeState(path, "tag", {"model": "0" * 64})
    state.start()
    for place in range(number):
        state.add(photo(place), f"{place:016x}", "done", (place + 1) * LINE)
        if place % 1000 == 999:
            state.flush()
    state.flush()


def loaded(path: Path, number: int) -> ResumeState:
    state = ResumeState(path, "tag", {"model": "0" * 64})
    state.load(number * LINE)
    return state


def read_lines(path: Path) -> None:
    with path.open("rb") as lines:
        for line in lines:
            orjson.loads(line)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    number = parser.parse_args().records
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "out.state.jsonl"
        write_state(path, number)
        floor = min(core_seconds(lambda: read_lines(path)) for _ in range(3))
        start = min(core_seconds(lambda: loaded(path, number)) for _ in range(3))
        state = loaded(path, number)
        skip = core_seconds(lambda: [state.take(photo(place)) is None for place in range(number)])
        del state
        tracemalloc.start()
        state = loaded(path, number)
        taken = tracemalloc.get_traced_memory()[0] / number
        tracemalloc.stop()
    print(f"{number:,} records, {taken:.1f} bytes of memory each (at most {MOST_BYTES:g})")
    print(f"reading the state's lines as JSON: {floor:.2f} s of CPU = 1")
    print(f"start: {start:.2f} s = {start / floor:.1f} (a million in at most {MOST_SECONDS:g} s)")
    print(f"looking all inputs up: {skip:.2f} s = {skip / floor:.1f}")
    return int(taken > MOST_BYTES or start > MOST_SECONDS * number / 1_000_000)


if __name__ == "__main__":
    sys.exit(main())
