#!/usr/bin/env python3
"""The labels, predictions and figures of table4.mk.

    table4.py labels all.jsonl --most 300                 the most frequent labels
    table4.py words SET --model M --eval E                what a model is asked for on a set
    table4.py table --rows R... --seeds S... --sets SET... --out W/table4

A class is seen where the smaller label system holds it; others are asked for as words. The
endpoint: the mean over the sets of the paired difference in mAP of seen classes from the row
before.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
from cells import MEASURED, NONE, Cell, endpoint, legend, markdown, write
from sets import HERE, SEED, Truth, kept
from tables import PAPER

from ramctl.checkpoints.bundle import Bundle
from ramctl.evaluation.metrics import interval, mean_over_classes, resamples
from ramctl.records.jsonl import dumps
from ramctl.records.labels import Labels

COLUMNS = ("seen categories", "captioning", "textual queries", "distillation")
SETS = {own["name"]: own for own in PAPER["sets"]}
BENCHMARKS = ("OPPO-common", "OpenImages-common", "OpenImages-rare")


def truth_of(name: str, folder: Path) -> Truth:
    """The truth of a shared set."""
    return Truth.of_set(name, folder, HERE / "maps" / f"{SETS[name]['map']}.tsv")


def seen(truth: Truth, small: Labels) -> np.ndarray:
    """Which classes (C,) the smaller label system holds, by any word that they are asked for."""
    names = truth.system.tags
    asked = ([name, *truth.mapping.get(name, [])] for name in names)
    return np.array([any(small.ids(word) for word in words) for words in asked])


def words(options: argparse.Namespace) -> list[str]:
    """The words for a set's classes; learnt queries know no others than their labels."""
    bundle = Bundle.open(options.model)
    is_learnt = bundle.preset.model.labels.kind == "learnt"
    asked = truth_of(options.set, options.eval).words
    return [word for word in asked if not is_learnt or bundle.labels.ids(word)]


class Figures:
    """The figures of all runs, each of which is kept."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.work, self.seeds = options.work, options.seeds
        self.small = Labels.read(options.work / "small.jsonl")
        self.truths = {name: truth_of(name, options.eval) for name in options.sets}

    def of(self, row: str, seed: str, name: str) -> dict[str, Any]:
        """mAP of seen and of other classes, as they are and resampled."""
        run = f"{row}-{seed}"
        path = self.work / "predictions" / name / f"{run}.jsonl"
        out = self.work / "figures" / name / f"{run}.json"
        return kept(out, path, lambda: self._measure(self.truths[name], path))

    def _measure(self, truth: Truth, path: Path) -> dict[str, Any]:
        comparison = truth.compared(path)
        resampled = comparison.average_precisions(resamples(len(comparison.photos), SEED))
        is_seen = seen(truth, self.small)
        found = {}
        for kind, classes in (("seen", is_seen), ("unseen", ~is_seen & comparison.known)):
            value = float(mean_over_classes(comparison.precisions[classes]))
            means = mean_over_classes(resampled[:, classes]).tolist()
            found[kind] = None if np.isnan(value) else {"mAP": value, "resampled": means}
        return found

    def mean(self, row: str, name: str, kind: str) -> tuple[float, float] | None:
        """Mean mAP over the seeds and its spread; None where the row cannot be asked."""
        found = [self.of(row, seed, name)[kind] for seed in self.seeds]
        if None in found:
            return None
        values = [own["mAP"] for own in found]
        return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def difference(self, row: str, base: str, kind: str) -> dict[str, Any] | None:
        """The endpoint: over the sets, of the mean over the seeds; photos and seeds resampled."""
        gains, resampled, random = [], [], np.random.default_rng(0)
        for name in self.truths:
            pairs = [
                (self.of(row, s, name)[kind], self.of(base, s, name)[kind]) for s in self.seeds
            ]
            if any(None in pair for pair in pairs):
                return None
            gains.append(np.mean([a["mAP"] - b["mAP"] for a, b in pairs]))
            own = np.array([np.array(a["resampled"]) - b["resampled"] for a, b in pairs])
            drawn = random.integers(len(own), size=(own.shape[1], len(own)))
            by_photos = random.permutation(own.shape[1])
            resampled.append([own[drawn[i], by_photos[i]].mean() for i in range(own.shape[1])])
        mean = float(np.mean(gains))
        means = np.mean(resampled, axis=0)
        return {"difference": mean, "ci": interval(mean, means, lowest=-1.0)}


def table(options: argparse.Namespace) -> None:
    """Table 4 as Markdown, CSV and JSON."""
    figures, paper = Figures(options), {own["row"]: own["paper"] for own in PAPER["table4"]}
    sizes = dict.fromkeys(options.rows, str(len(figures.small)))
    sizes["larger"] = str(len(Labels.read(options.work / "all.jsonl")))
    columns = [
        f"{SETS[name]['title']}, {kind}" for name in options.sets for kind in ("seen", "unseen")
    ]
    ours, theirs = [], []
    for row in options.rows:
        cells = []
        for name in options.sets:
            for kind in ("seen", "unseen"):
                found = figures.mean(row, name, kind)
                shown = f"{100 * found[0]:.1f} ± {100 * found[1]:.1f}" if found else "x"
                title, status = f"{SETS[name]['title']}, {kind}", MEASURED if found else NONE
                cells.append(Cell(row, title, f"labels: {kind}", "", status, shown))
        ours.append(([row, sizes[row], *paper[row][1:4]], cells))
        paper_cells = [
            Cell(row, title, "", number, NONE)
            for title, number in zip(BENCHMARKS, paper[row][4:], strict=True)
        ]
        theirs.append(([row, *paper[row][:4]], paper_cells))
    differences = {
        f"{row} - {base}, {kind} classes": own
        for base, row in pairwise(options.rows)
        for kind in ("seen", "unseen")
        if (own := figures.difference(row, base, kind)) is not None
    }
    lead = ("case", *COLUMNS)
    cells = [cell for _, row in ours + theirs for cell in row]
    title = "Table 4, the shared photos: mAP, mean and spread of seeds"
    tables = [
        markdown(title, columns, ours, lead=lead),
        endpoint(differences) + markdown("Table 4 of the paper", BENCHMARKS, theirs, lead=lead),
        legend(cells),
    ]
    text = "\n".join(tables)
    write(options.out, text, cells, differences=differences)
    print(text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    labels = commands.add_parser("labels")
    labels.add_argument("labels", type=Path)
    labels.add_argument("--most", type=int, required=True)
    one = commands.add_parser("words")
    one.add_argument("set")
    for name in ("model", "eval"):
        one.add_argument(f"--{name}", type=Path, required=True)
    whole = commands.add_parser("table")
    for name in ("rows", "seeds", "sets"):
        whole.add_argument(f"--{name}", nargs="+", required=True)
    for name in ("eval", "work", "out"):
        whole.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "labels":
        system = Labels.read(options.labels)
        most = sorted(system, key=lambda label: -(label.count or 0))[: options.most]
        sys.stdout.buffer.write(b"".join(dumps(label.to_json()) for label in most))
    elif options.command == "words":
        print("\n".join(words(options)))
    else:
        table(options)


if __name__ == "__main__":
    main()
