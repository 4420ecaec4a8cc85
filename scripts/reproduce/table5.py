#!/usr/bin/env python3
"""The records and the figures of table5.mk.

    table5.py draw photos.jsonl ... --fraction 0.25          records of some photos
    table5.py detected boxes.jsonl --records photos.jsonl    what detectors are sure of
    table5.py classes truth.jsonl --fewest 4                 tags of so many photos
    table5.py words classes.txt [map.tsv]                    all names that a truth asks for
    table5.py tags --work W                                  the paper's table, our tags beside
    table5.py table --work W --truth FILE CLASSES TITLE [MAP] ...

Which photos are drawn is decided by their names alone.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
from numpy.typing import NDArray
from sets import SEED, Truth, read
from tables import PAPER

from ramctl.evaluation.classes import read_map
from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import interval, mean_over_classes, resamples
from ramctl.records.labels import Labels

# A detector's boxes: precise above the one score, and below the other nothing is there.
PRESENT, ABSENT = 0.5, 0.1
SIZES = ("small", "large")
SEEDS = "012"
# Each row with the one that it is compared with.
ROWS = {"parsed": "", "generated": "parsed", "cleaned": "generated", "tuned": "cleaned",
        "longer": "cleaned"}  # fmt: skip
NAMES = {
    "parsed": "parsed", "generated": "+ generated", "cleaned": "+ cleaned",
    "tuned": "+ fine-tuned", "longer": "as many steps without the good set",
}  # fmt: skip
MADE = ("parsed", "generated", "cleaned")  # rows with records of their own
RESAMPLES = 512
Floats = NDArray[np.float64]


def main() -> None:
    """The command line; the makefile gives each command the options that it needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = {"draw": draw, "detected": detected, "classes": classes, "words": words,
                "tags": tags, "table": tables}  # fmt: skip
    parser.add_argument("command", choices=commands)
    parser.add_argument("files", type=Path, nargs="*")
    for name in ("records", "work"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("fraction", "fewest"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--truth", nargs="+", action="append")
    options = parser.parse_intermixed_args()  # before Python 3.12 no files stand behind options
    for line in commands[options.command](options):
        text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
        sys.stdout.write(f"{text}\n")


def draw(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Records of a fraction of the photos."""
    for row in (row for path in options.files for row in read(path)):
        digest = hashlib.blake2b(f"photo:{row['image']}".encode(), digest_size=6).digest()
        if int.from_bytes(digest, "big") / 2**48 < options.fraction:
            yield row


def detected(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A truth of the photos of records: classes between sure and absent count neither way."""
    origins = {row["image"]: row["origin"] for row in read(options.records)}
    for row in (row for path in options.files for row in read(path)):
        if row["image"] not in origins:
            continue
        best: dict[str, float] = {}
        for name, score, *_ in row["boxes"]:
            best[name] = max(score, best.get(name, 0))
        yield {
            "image": row["image"],
            "origin": origins[row["image"]],
            "tags": [name for name, score in best.items() if score >= PRESENT],
            "uncertain": [name for name, score in best.items() if ABSENT <= score < PRESENT],
        }


def classes(options: argparse.Namespace) -> Iterator[str]:
    """The tags that are true of enough photos."""
    counts = Counter(tag for path in options.files for row in read(path) for tag in row["tags"])
    return (tag for tag, n in counts.items() if n >= options.fewest)


def words(options: argparse.Namespace) -> Iterator[str]:
    """The classes of lists, and the tags that maps give to classes."""
    found: dict[str, None] = {}
    for path in options.files:
        if path.suffix == ".tsv":
            found |= dict.fromkeys(tag for tags in read_map(path).values() for tag in tags)
        else:
            found |= dict.fromkeys(Labels.read(path).tags)
    return iter(found)


class Measured:
    """A model's mAP against a truth, in percent: of all photos, and of resamples.

    The resamples are of photos, and then of their origins where these are known.
    """

    def __init__(self, compared: Comparison, origins: Sequence[str] | None) -> None:
        self.mean = 100 * float(mean_over_classes(compared.precisions))
        self.resampled = [_resampled(compared, range(len(compared.photos)))]
        if origins is not None:
            self.resampled.append(_resampled(compared, origins))


def _resampled(compared: Comparison, origins: Sequence[str] | range) -> Floats:
    """The mAP of resamples of the origins, with all photos of each."""
    _, groups = np.unique(list(origins), return_inverse=True)
    weights = resamples(int(groups.max()) + 1, SEED)[groups, :RESAMPLES]
    return 100 * mean_over_classes(compared.average_precisions(weights))


class Figures:
    """The figures of all models against one truth."""

    def __init__(self, work: Path, truth: str, classes: str, title: str, *maps: str) -> None:
        self.truth = Truth.of_files(Path(truth), Path(classes), Path(maps[0]) if maps else None)
        self.title, self.work = title, work
        self.labels = Labels.read(work / "labels.jsonl")
        rows = read(Path(truth))
        origins = {row["image"]: row.get("group") or row.get("origin") for row in rows}
        self.origins = {image: str(name).partition(":")[0] for image, name in origins.items()}
        self.has_origins = None not in origins.values()
        self._measured: dict[tuple[str, str, str], Measured] = {}

    @cached_property
    def n_origins(self) -> int:
        """The number of origins of the photos."""
        return len(set(self.origins.values()))

    def measured(self, size: str, row: str, seed: str) -> Measured:
        """One model's figures."""
        key = size, row, seed
        if key not in self._measured:
            path = self.work / "predictions" / size / f"{row}-{seed}" / f"{self.truth.name}.jsonl"
            compared = self.truth.compared(path, self.labels)
            names = [self.origins[photo] for photo in compared.photos]
            self._measured[key] = Measured(compared, names if self.has_origins else None)
        return self._measured[key]

    def mean(self, size: str, row: str) -> str:
        """The mean of the seeds and their spread."""
        values = [self.measured(size, row, seed).mean for seed in SEEDS]
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"

    def gain(self, ours: tuple[str, str], theirs: tuple[str, str]) -> str:
        """The difference of two rows with its intervals over photos and over origins.

        Seeds are drawn as photos are, so that a lucky one is no gain.
        """
        pairs = [(self.measured(*ours, s), self.measured(*theirs, s)) for s in SEEDS]
        mean = float(np.mean([a.mean - b.mean for a, b in pairs]))
        each = zip(*(zip(a.resampled, b.resampled, strict=True) for a, b in pairs), strict=True)
        found = [_interval(mean, np.stack([x - y for x, y in kind])) for kind in each]
        bold = "**" if all(low > 0 or high < 0 for low, high in found) else ""
        texts = (f"{low:+.2f} to {high:+.2f}" for low, high in found)
        return f"{bold}{mean:+.2f}{bold} ({'; '.join(texts)})"


def _interval(mean: float, pairs: Floats) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds, from each seed's resampled differences (S, B)."""
    drawn = np.random.default_rng(0).integers(len(pairs), size=(pairs.shape[1], len(pairs)))
    means = np.take_along_axis(pairs.T, drawn, axis=1).mean(axis=1)
    low, high = interval(mean / 100, means / 100, lowest=-1.0) or (-1.0, 1.0)
    return 100 * low, 100 * high


def tags(options: argparse.Namespace) -> Iterator[str]:
    """The paper's table with the numbers of our tags beside, as Markdown."""
    paper = {row["row"]: row for row in PAPER["table5"]}
    counted = {size: _counted(options.work / "records" / size) for size in SIZES}
    ours = (f"{counted[size]['photos']:,} photos" for size in SIZES)
    head = ["row", *ours]
    for photos in ("4M", "14M"):
        head += [f"tags of {photos} photos", "OPPO-common", "OpenImages-common", "OpenImages-rare"]
    yield f"**Tags, in thousands, and the paper's tags and mAP**\n\n| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in paper:
        numbers = (counted[size].get(row, counted[size]["cleaned"]) for size in SIZES)
        theirs = (f"({x})" if x else "" for size in SIZES for x in paper[row][size])
        yield f"| {' | '.join([NAMES[row], *(f'{n / 1000:.1f}' for n in numbers), *theirs])} |"
    yield ""


def tables(options: argparse.Namespace) -> Iterator[str]:
    """The table of each truth, as Markdown."""
    sizes = [_counted(options.work / "records" / size)["photos"] for size in SIZES]
    for truth in options.truth:
        yield from _table(Figures(options.work, *truth), [f"{n:,} photos" for n in sizes])


def _table(figures: Figures, columns: Sequence[str]) -> Iterator[str]:
    """The table of a truth: mAP of each row, and its gain over the row before."""
    origins = f" of {figures.n_origins} origins" if figures.has_origins else ""
    number = f"{len(figures.truth.statements):,} photos{origins}, "
    yield f"**mAP by {figures.title}** ({number}{len(figures.truth.system)} labels)"
    yield ""
    cells = (
        f"{column} | gain (95 % over photos{'; origins' * bool(origins)})" for column in columns
    )
    yield f"| row | {' | '.join(cells)} |\n|{'---|' * 5}"
    for row, before in ROWS.items():
        shown = []
        for size in SIZES:
            gain = figures.gain((size, row), (size, before)) if before else ""
            shown += [figures.mean(size, row), gain]
        yield f"| {NAMES[row]} | {' | '.join(shown)} |"
    for row, other in (("tuned", "longer"), ("tuned", "parsed")):
        shown = [figures.gain((size, row), (size, other)) for size in SIZES]
        yield f"| {NAMES[row].strip('+ ')} - {NAMES[other]} | | {shown[0]} | | {shown[1]} |"
    more = [f"{NAMES[row]}: {figures.gain(('large', row), ('small', row))}"
            for row in ("parsed", "tuned")]  # fmt: skip
    yield f"\nThe larger set against the smaller: {', '.join(more)}.\n"


def _counted(folder: Path) -> dict[str, int]:
    """The number of photos, and of tags in each file of records."""
    found = {row: list(read(folder / f"{row}.jsonl")) for row in MADE}
    tags = {name: sum(len(row["tags"]) for row in rows) for name, rows in found.items()}
    return tags | {"photos": len(found["parsed"])}


if __name__ == "__main__":
    main()
