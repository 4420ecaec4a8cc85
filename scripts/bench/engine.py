#!/usr/bin/env python3
"""Compare the cost of the data engine with `ramctl tag`: same photos, same runtime, same dtype.

    scripts/bench/engine.py [--model mini] [--photos 96] [--turns 1] [--detector DETECTOR]

Runs the commands on flickr8k-dev, in turns, on one thread, and prints photos per core-second of
each: the median of what all photos take more than two photos do, so that start-up does not count.
Core-time and not wall time, because other programs on the machine take that too. A caption costs
what `generate` with it takes more than without.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from measuring import SHARED, run_ramctl

PHOTOS = SHARED / "data" / "photos"
FEW = 2  # photos of a run that measures the start-up
MIN_SPEED = 0.7  # of tag's speed, for `generate` without captions
MAX_SPEED = 1.3  # times tag's time, for `clean` without clustering
FP32 = ["--dtype", "fp32"]
DETECT = ["clean", "--stage", "detect", *FP32]
COMMANDS = {
    "tag": ["tag", "--runtime", "torch", *FP32],
    "tag, its own runtime": ["tag"],
    "generate, no captions": ["generate", "--captions", "0", *FP32],
    "generate, beams": ["generate", "--captions", "1", *FP32],
    "generate, nucleus:0.9": ["generate", "--captions", "1", "--decode", "nucleus:0.9", *FP32],
    "clean": DETECT,
}


def core_s(arguments: list[str]) -> float:
    """Processor seconds of a `ramctl` command."""
    return run_ramctl(*arguments, "-q").core_s


def command(name: str, records: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    """A command on some records; `clean` leaves what it found in a work folder."""
    line = [*COMMANDS[name], str(records), "--model", options.model, "--root", str(PHOTOS)]
    line += ["--threads", "1", "-j", "1"]
    if COMMANDS[name][0] == "clean":
        return [*line, "--work", str(folder / f"{name}-{records.stem}-{os.urandom(4).hex()}")]
    return [*line, "-o", str(folder / "out.jsonl")]


def seconds_a_photo(
    names: list[str], records: tuple[Path, Path], folder: Path, options: argparse.Namespace
) -> dict[str, float]:
    """The median core seconds of each command for one more photo."""
    few, all_ = records
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.turns):
        for name in names:
            more = core_s(command(name, all_, folder, options))
            more -= core_s(command(name, few, folder, options))
            times[name].append(more / (options.photos - FEW))
    return {name: statistics.median(own) for name, own in times.items()}


def write_records(folder: Path, n_photos: int) -> tuple[Path, Path]:
    """Parsed records of a few photos, and of all."""
    lines = (PHOTOS / "flickr8k-dev.jsonl").read_bytes().splitlines(keepends=True)
    written = []
    for name, number in (("few", FEW), ("all", n_photos)):
        captions = folder / f"{name}-captions.jsonl"
        captions.write_bytes(b"".join(lines[:number]))
        core_s(["parse", str(captions), "-o", str(folder / f"{name}.jsonl")])
        written.append(folder / f"{name}.jsonl")
    return written[0], written[1]


def clustering_s(records: Path, folder: Path, options: argparse.Namespace) -> float:
    """Core seconds of the stages after the look at the photos."""
    work = str(folder / "clustered")
    detect = command("clean", records, folder, options)
    core_s([*detect[: detect.index("--work")], "--work", work])
    shared = ["clean", "--model", options.model, "--work", work, "--stage"]
    return core_s([*shared, "cluster"]) + core_s([*shared, "apply", "-o", str(folder / "cleaned")])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="mini")
    parser.add_argument("--photos", type=int, default=96)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--detector", help="another one, as grounding-dino:WEIGHTS")
    options = parser.parse_args()
    if options.detector:
        COMMANDS[f"clean, {options.detector}"] = [*DETECT, "--detector", options.detector]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = write_records(folder, options.photos)
        took = seconds_a_photo(list(COMMANDS), records, folder, options)
        clustering = clustering_s(records[1], folder, options)
    tag = took["tag"]
    of_tag = {name: round(tag / own, 2) for name, own in took.items()}
    bare = took["generate, no captions"]
    facts = {
        "model": options.model,
        "photos": options.photos,
        "turns": options.turns,
        "photos per core-second": {name: round(1 / own, 1) for name, own in took.items()},
        "speed, tag = 1": of_tag,
        "milliseconds a caption": {
            name: round(1e3 * (took[f"generate, {name}"] - bare), 1)
            for name in ("beams", "nucleus:0.9")
        },
        "cluster and apply, core seconds": round(clustering, 2),
        "generate without captions, at least": MIN_SPEED,
        "clean by attention, pooled, at most times tag's time": MAX_SPEED,
    }
    print(json.dumps(facts, indent=1))
    holds = tag / bare >= MIN_SPEED and took["clean"] <= MAX_SPEED * tag
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
