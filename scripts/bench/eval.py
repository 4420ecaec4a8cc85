#!/usr/bin/env python3
"""Speed and memory of `ramctl eval` against scikit-learn and a bare JSON reader, in one run.

    scripts/bench/eval.py [--sizes 57224x214 10000x4585] [--rounds 3]

For each number of photos and classes: average precision against scikit-learn's
`average_precision_score` a class (on at most 100 of them), dense JSONL against orjson and a bare
loop into single precision, and the peak memory of the command beyond that of one which reads two
photos. Core-seconds of one thread, the best of the
rounds, the ways taken in turn. Exit code 1 where a figure falls behind what is promised.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn")

import numpy as np
import orjson
from measuring import core_seconds, run_ramctl
from sklearn.metrics import average_precision_score

from ramctl.captions.caption_formats import read_predictions
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.metrics import average_precisions
from ramctl.evaluation.predictions import PredictionTable
from ramctl.records.labels import Labels
from ramctl.records.report import Rejects, Report

SIZES = ["57224x214", "10000x4585"]
MIN_SPEEDUP = 2.0  # times as fast
MIN_MB_S = 40.0  # of dense JSONL
MAX_MEMORY = 2.5  # times the scores in single precision
TAGS_A_PHOTO = 1.2  # as Open Images' common-214 has
SKLEARN_CLASSES = 100


def best_of(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The fewest seconds of one core that each takes, in turns."""
    turns = [[core_seconds(work) for work in works] for _ in range(rounds)]
    return [min(times) for times in zip(*turns, strict=True)]


def write(folder: Path, n_photos: int, n_classes: int) -> None:
    """Truth and dense predictions as `tag --dense` writes them, with some skill in them."""
    random = np.random.default_rng(0)
    names = [f"tag {c}" for c in range(n_classes)]
    with (folder / "truth.jsonl").open("wb") as truth, (folder / "dense.jsonl").open("wb") as dense:
        for photo in range(n_photos):
            given = random.integers(0, n_classes, random.poisson(TAGS_A_PHOTO)).tolist()
            logits = random.normal(-4, 2, n_classes)
            logits[given] += 4
            scores = 1 / (1 + np.exp(-logits))
            image = f"{photo:012}.jpg"
            tags = [names[c] for c in given]
            truth.write(orjson.dumps({"image": image, "tags": tags}) + b"\n")
            row = {"image": image, "labels": "sha256:0"} | ({} if photo else {"label_names": names})
            power = 10.0 ** (5 - np.floor(np.log10(scores)))
            dense_row = row | {"dense": (np.rint(scores * power) / power).tolist()}  # six digits
            dense.write(orjson.dumps(dense_row) + b"\n")


def read(folder: Path, classes: Classes) -> PredictionTable:
    report = Report("bench", quiet=True)
    with Rejects(report, None) as rejects:
        items = read_predictions(str(folder / "dense.jsonl"), "bench")
        return PredictionTable.read(items, classes, rejects)


def read_bare(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    scores = np.empty(shape, np.float32)
    with (folder / "dense.jsonl").open("rb") as stream:
        for row, line in enumerate(stream):
            scores[row] = orjson.loads(line)["dense"]
    return scores


def peak_mb(folder: Path, *names: str) -> float:
    """The peak resident memory of `ramctl eval` in a process of its own, in MB."""
    truth, dense = (folder / name for name in names)
    command = ["eval", dense, "--truth", truth, "-q", "-o", folder / "figures.json"]
    return run_ramctl(*command).peak_bytes / 1e6


def measure(folder: Path, n_photos: int, n_classes: int, rounds: int) -> dict[str, float]:
    write(folder, n_photos, n_classes)
    for name in ("truth", "dense"):
        lines = (folder / f"{name}.jsonl").open("rb")
        (folder / f"two-{name}.jsonl").write_bytes(lines.readline() + lines.readline())
    idle = peak_mb(folder, "two-truth.jsonl", "two-dense.jsonl")
    peak = peak_mb(folder, "truth.jsonl", "dense.jsonl")
    classes = Classes(Labels.from_tags(f"tag {c}" for c in range(n_classes)), "bench", {})
    bare, ours = best_of(
        rounds,
        lambda: read_bare(folder, (n_photos, n_classes)),
        lambda: read(folder, classes),
    )
    scores = read_bare(folder, (n_photos, n_classes))
    random = np.random.default_rng(1)
    few = min(n_classes, SKLEARN_CLASSES)
    positives = (random.random(scores.shape) < scores).astype(np.int8)
    sklearn, all_ = best_of(
        rounds,
        lambda: [average_precision_score(positives[:, c], scores[:, c]) for c in range(few)],
        lambda: average_precisions(scores, positives),
    )
    megabytes = (folder / "dense.jsonl").stat().st_size / 1e6
    return {
        "average precision, times scikit-learn": sklearn / few * n_classes / all_,
        "dense JSONL, MB a core-second": megabytes / ours,
        "the same by a bare loop": megabytes / bare,
        "peak memory, times the scores": (peak - idle) / (scores.nbytes / 1e6),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="PHOTOSxCLASSES")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    holds = True
    for size in options.sizes:
        n_photos, n_classes = map(int, size.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), n_photos, n_classes, options.rounds)
        print(json.dumps({"size": size} | {k: round(v, 2) for k, v in found.items()}, indent=1))
        speed, rate, _, memory = found.values()
        holds &= speed >= MIN_SPEEDUP and rate >= MIN_MB_S and memory <= MAX_MEMORY
    return int(not holds)


if __name__ == "__main__":
    sys.exit(main())
