#!/usr/bin/env python3
"""What `ramctl clean` costs compared with `ramctl tag`: same photos, same runtime, same dtype.

    scripts/bench/clean.py parsed.jsonl --root PHOTOS [--model mini] [--dtype fp32] [--turns 3]

Runs both commands in turns, start-up included, and prints the median processor and wall seconds of
tag, detect (attention, pool), cluster and apply, and the ratio of detect to tag.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.3
TIMES = ("core seconds", "wall seconds")


def timed(arguments: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of a `ramctl` command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ramctl", *arguments, "-q"]
    subprocess.run(command, check=True, env=environment)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, wall


def turn(options: argparse.Namespace, folder: Path) -> dict[str, tuple[float, float]]:
    """One run of each command."""
    run = ["--model", options.model, "--root", str(options.root), "--dtype", options.dtype]
    run += ["--threads", str(options.threads), "-j", str(options.threads)]
    records, work = str(options.records), folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    clean = ["clean", "--model", options.model, "--work", str(work)]
    return {
        "tag": timed(["tag", records, "--runtime", "torch", *run, "-o", str(folder / "tags")]),
        "detect": timed(["clean", records, "--stage", "detect", *run, "--work", str(work)]),
        "cluster": timed([*clean, "--stage", "cluster"]),
        "apply": timed([*clean, "--stage", "apply", "-o", str(folder / "cleaned")]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("records", type=Path, help="records with tags")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        turns = [turn(options, Path(folder)) for _ in range(options.turns)]
    medians = {
        name: {
            unit: round(statistics.median(turn[name][i] for turn in turns), 2)
            for i, unit in enumerate(TIMES)
        }
        for name in turns[0]
    }
    ratios = {unit: round(medians["detect"][unit] / medians["tag"][unit], 3) for unit in TIMES}
    n_photos = sum(1 for _ in options.records.open("rb"))
    facts = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "command": " ".join(sys.argv),
        "photos": n_photos,
        "turns": turns,
        "median": medians,
        "detect / tag": ratios,
        "limit": LIMIT,
    }
    print(json.dumps(facts, indent=1))
    return int(ratios[TIMES[0]] > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
