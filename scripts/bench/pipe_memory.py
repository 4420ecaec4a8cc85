#!/usr/bin/env python3
"""Checks that `ramctl generate | ramctl clean` hardly needs more memory for ten times the records.

    scripts/bench/pipe_memory.py --records 40000

Runs the pipe on a tenth of the records, then on all of them, and compares the peak memory of both
commands; every line must come out once, in order, with its own fields. The bundle is tiny, with
random weights: the stream is measured, not the network. Only one number per region may grow.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from memory import memory_mib  # noqa: E402

from tests.support import TAGS, write_tiny_bundle  # noqa: E402

MOST_GROWTH_MIB = 64
MODULE = [sys.executable, "-m", "ramctl"]


def write_records(path: Path, number: int) -> None:
    """Records of a few photos with two thirds of the labels as tags, and a foreign field."""
    photos = sorted((ROOT / "tests" / "data" / "photos").glob("*.jpg"))
    with path.open("w", encoding="utf-8") as stream:
        for index in range(number):
            tags = [tag for place, tag in enumerate(TAGS) if (index + place) % 3]
            row = {
                "id": index, "image": str(photos[index % len(photos)]), "tags": tags,
                "kinds": dict.fromkeys(tags, "object"), "mine": f"{index} " * 20,
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")


def run_pipe(folder: Path, model: Path, number: int) -> tuple[float, float, float]:
    """Peak memory of `generate` and of `clean`, and seconds; every line is checked."""
    write_records(folder / "records.jsonl", number)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    generate = [*MODULE, "generate", "records.jsonl", "--model", str(model), "-q"]
    clean = [*MODULE, "clean", "--model", str(model), "-q", "-o", "cleaned.jsonl"]
    started = time.monotonic()
    first = subprocess.Popen(generate, cwd=folder, env=environment, stdout=subprocess.PIPE)
    second = subprocess.Popen(clean, cwd=folder, env=environment, stdin=first.stdout)
    assert first.stdout is not None
    first.stdout.close()
    peaks = [0.0, 0.0]
    while second.poll() is None:
        now = [memory_mib(process.pid, "VmHWM") for process in (first, second)]
        peaks = [max(pair) for pair in zip(peaks, now, strict=True)]
        time.sleep(0.2)
    if first.wait() or second.returncode:
        sys.exit(f"generate ended with {first.returncode}, clean with {second.returncode}")
    with (folder / "cleaned.jsonl").open(encoding="utf-8") as stream:
        n_lines = 0
        for index, line in enumerate(stream):
            row = json.loads(line)
            if row["id"] != index or row["mine"] != f"{index} " * 20:
                sys.exit(f"line {index + 1} is not record {index} as it was")
            n_lines += 1
    if n_lines != number:
        sys.exit(f"{n_lines} lines out of {number}")
    return peaks[0], peaks[1], time.monotonic() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=40_000)
    given = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        model = write_tiny_bundle(Path(name) / "tiny")
        for number in (given.records // 10, given.records):
            found.append(run_pipe(Path(name), model, number))
            generate, clean, seconds = found[-1]
            print(
                f"{number:>9,} records: generate {generate:.0f} MiB, clean {clean:.0f} MiB, "
                f"{seconds:.0f} s, every line once and in order",
                flush=True,
            )
    growth = max(after - before for before, after in zip(*(f[:2] for f in found), strict=True))
    print(f"growth with ten times the records: {growth:.0f} MiB (at most {MOST_GROWTH_MIB})")
    return int(growth > MOST_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
