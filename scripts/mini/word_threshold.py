#!/usr/bin/env python3
"""Print which threshold suits words that are no labels, and what it gives on judged photos.

    scripts/mini/word_threshold.py judge.py words.txt dense.jsonl JUDGED.jsonl...

Words that are right on four judged photos or more are dealt into five folds by their names. For
each fold the threshold is the one that has the best F0.5 (precision counts twice as much as recall)
on the words of the others, and is applied to its own. Then the same for the default of 0.5, and for
a limit of each word's own: so many standard deviations above the mean of its logits on all photos.
What a judge doubts counts neither way.
"""

import argparse
import json
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
from judging import open_judge
from numpy.typing import NDArray

FOLDS = 5
THRESHOLDS = np.arange(1, 20) / 20
DEVIATIONS = np.arange(4, 14) / 4
Flags = NDArray[np.bool_]
Printed = Callable[[float], Flags]  # at a limit, (photos, words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("judge", "words", "dense"):
        parser.add_argument(name, type=Path)
    parser.add_argument("judged", type=Path, nargs="+")
    args = parser.parse_args()
    judge = open_judge(args.judge)
    words = args.words.read_text("utf-8").split("\n")[:-1]
    told = list(map(json.loads, args.dense.open(encoding="utf-8")))
    place = {name: index for index, name in enumerate(told[0]["label_names"])}
    scores = np.array([row["dense"] for row in told])[:, [place[word] for word in words]]

    def marked(field: str) -> Flags:
        rows = [json.loads(line) for path in args.judged for line in path.open(encoding="utf-8")]
        forms = [{judge.fold(tag) for tag in row[field]} for row in rows]
        return np.array([[judge.fold(word) in own for word in words] for own in forms])

    right = marked("right")
    counted = right | ~marked("doubtful")
    fold = np.array([blake2b(w.encode(), digest_size=1).digest()[0] % FOLDS for w in words])
    logits = np.log(scores / (1 - scores))
    away = (logits - logits.mean(0)) / logits.std(0)

    def show(title: str, limits: NDArray[np.float64], printed: Printed) -> None:
        chosen, given = [], np.zeros_like(right)
        for own in (fold == number for number in range(FOLDS)):
            some = counted & ~own
            best = max(limits, key=lambda limit: f_half(printed(limit) & some, right & some))
            chosen.append(round(float(best), 2))
            given |= printed(best) & counted & own
        hits = (given & right).sum()
        print(
            f"{title} {chosen}: {given.sum() / len(given):.1f} words a photo, "
            f"{hits / given.sum():.1%} right, {hits / right.sum():.1%} of the right ones"
        )

    print(f"{len(words)} words, {len(told)} photos")
    show("threshold", THRESHOLDS, lambda limit: scores >= limit)
    show("threshold", np.array([0.5]), lambda limit: scores >= limit)
    show("deviations", DEVIATIONS, lambda limit: away >= limit)
    best, at = scores.argmax(0), np.arange(len(words))
    found = right[best, at]
    for limit in (0.2, 0.5):
        passing = (scores.max(0) >= limit)[found].mean()
        print(f"of {found.sum()} words whose best photo is right {passing:.0%} pass {limit}")


def f_half(given: Flags, right: Flags) -> float:
    hits = (given & right).sum()
    return float(1.25 * hits / (given.sum() + 0.25 * right.sum()))


if __name__ == "__main__":
    main()
