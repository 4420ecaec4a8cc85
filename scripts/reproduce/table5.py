#!/usr/bin/env python3
"""The records and the figures of table5.mk.

    table5.py short parsed.jsonl ... --fraction 1 --captioned 1 --kept 0.25  records that say less
    table5.py detected boxes.jsonl --photos P --root R        what detectors are sure of
    table5.py classes truth.jsonl --fewest 4                      tags of so many photos
    table5.py words classes.txt map.tsv ...                       all names that truths ask for
    table5.py added all.jsonl scores.jsonl --model M              what `generate` adds
    table5.py chances all.jsonl --labels L --root P --evidence E  what `generate --evidence` adds
    table5.py scores all.jsonl --model M --root P --cache C --out F   a model's scores of photos
    table5.py predict TRUTH... --model M --words W --cache C --out DIR
    table5.py table --work W --labels L --columns ... --rows ... --truth FILE CLASSES TITLE [MAP]
    table5.py put table.md --into scripts/reproduce/README.md     the tables into the document

Which captions and which tags stay is decided by the photo's name alone.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import kept
import numpy as np
from cells import put_between_marks
from looks import Truth, read, resampled_precisions
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.classes import read_map
from ramctl.data_engine.additions import merge_generated, thresholds_to_add
from ramctl.data_engine.label_probabilities import Evidence, LabelProbabilities
from ramctl.evaluation.metrics import interval, mean_over_classes
from ramctl.labels import LabelSystem
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record
from ramctl.tagger_scores import PhotoName

BY_CAPTIONS = ("tags", "captions", "caption_tags", "kinds", "sources")
# A detector's boxes: precise above the one score, and below the other nothing is there.
PRESENT, ABSENT = 0.5, 0.1
SEEN = 0.005  # the lowest score that `scores` keeps
ORACLE, BASE = "full", "parsed"
NOT_RUN = "not run"


def main() -> None:
    """The command line; the makefile gives each command the options that it needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = {"short": short, "detected": detected, "classes": classes, "words": words,
                "added": added, "chances": chances, "scores": scores, "predict": predict,
                "table": tables, "put": put}  # fmt: skip
    parser.add_argument("command", choices=commands)
    parser.add_argument("files", type=Path, nargs="*")
    for name in ("photos", "root", "labels", "model", "words", "cache", "out", "work", "into"):
        parser.add_argument(f"--{name}", type=Path)
    for name in ("fraction", "captioned", "kept", "fewest"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("columns", "rows"):
        parser.add_argument(f"--{name}", nargs="+")
    parser.add_argument("--truth", nargs="+", action="append")
    parser.add_argument("--evidence")
    options = parser.parse_intermixed_args()  # before Python 3.12 no files stand behind options
    for line in commands[options.command](options):
        text = line if isinstance(line, str) else json.dumps(line, ensure_ascii=False)
        sys.stdout.write(f"{text}\n")


def short(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Records of some photos; some of these without what captions said, others with fewer tags.

    What a collection says of its photos without captions stays.
    """
    rows = (row for path in options.files for row in read(path))
    for row in (row for row in rows if draw("photo", row) < options.fraction):
        if not row.get("captions"):
            yield row
        elif draw("captions", row) >= options.captioned:
            yield {name: value for name, value in row.items() if name not in BY_CAPTIONS}
        else:
            stay = {tag for tag in row["tags"] if draw(f"drop:{tag}", row) >= 1 - options.kept}
            row["tags"] = [tag for tag in row["tags"] if tag in stay]
            row["caption_tags"] = [[t for t in own if t in stay] for own in row["caption_tags"]]
            for field in ("kinds", "sources"):
                row[field] = {tag: value for tag, value in row[field].items() if tag in stay}
            yield row


def draw(what: str, row: dict[str, Any]) -> float:
    """A number in [0, 1) that depends on the photo's name."""
    digest = hashlib.blake2b(f"{what}:{row['image']}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def detected(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A truth by boxes: classes between sure and absent count neither way."""
    folder = os.path.relpath(options.photos.resolve(), options.root.resolve())
    for row in (row for path in options.files for row in read(path)):
        best: dict[str, float] = {}
        for name, score, *_ in row["boxes"]:
            best[name] = max(score, best.get(name, 0))
        yield {
            "image": f"{folder}/{row['image']}",
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
            found |= dict.fromkeys(LabelSystem.read(path).tags)
    return iter(found)


def chances(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records with what another tagger makes likely of the labels that they leave out."""
    items = list(read_inputs(list(map(str, options.files)), str(options.root), "generate"))
    labels = LabelSystem.read(options.labels)
    found = LabelProbabilities([Evidence.parse(options.evidence)], labels, items)
    for record in items:
        if isinstance(record, Record):
            fields = {"tags": [], **record.fields}
            yield fields | {
                "chances": found.by_tag(PhotoName(fields["image"], record.base), fields)
            }


def added(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records with the tags that `generate --captions 0` adds by these scores of a model."""
    records, scored = options.files
    bundle = Bundle.open(options.model)
    thresholds = np.array(thresholds_to_add(None, None, bundle))
    column = {tag: i for i, tag in enumerate(bundle.labels.tags)}
    for row, own in zip(read(records), read(scored), strict=True):
        scores = np.zeros(len(column), np.float32)
        scores[[column[tag] for tag in own["scores"]]] = list(own["scores"].values())
        above = np.flatnonzero(scores > thresholds)
        tags = above[np.argsort(-scores[above], kind="stable")].tolist()
        yield merge_generated(row, bundle.labels, scores, tags, None, scores > thresholds)


def scores(options: argparse.Namespace) -> Iterator[str]:
    """A model's scores of the photos of records, into --out."""
    (records,) = options.files
    kept.predict(
        records, options.model, None, options.cache, options.out, root=options.root, least=SEEN
    )
    return iter(())


def predict(options: argparse.Namespace) -> Iterator[str]:
    """A model's predictions of all truths' photos, into the folder --out."""
    for records in options.files:
        out = options.out / records.stem / f"{options.model.name}.jsonl"
        kept.predict(records, options.model, options.words, options.cache, out)
    return iter(())


def put(options: argparse.Namespace) -> Iterator[str]:
    """The tables between the marks of a document."""
    (table,) = options.files
    put_between_marks(table.read_text("utf-8").strip(), options.into, "table5")
    return iter(())


class Figures:
    """The models' predictions against one truth: mAP, of all photos and of every resample."""

    def __init__(self, options: argparse.Namespace, truth: str, classes: str, *maps: str) -> None:
        self.truth = Truth.of_files(Path(truth), Path(classes), Path(maps[0]) if maps else None)
        self.folder, self.labels = options.work / "predictions", LabelSystem.read(options.labels)
        self.photos = len(self.truth.table.photos)
        self.of = cache(self._of)

    def _of(self, column: str, row: str) -> dict[str, tuple[float, NDArray[np.float64]]]:
        """By seed."""
        found = {}
        for path in sorted((self.folder / column / self.truth.name).glob(f"{row}-?.jsonl")):
            compared = self.truth.compared(path, self.labels)
            resampled = mean_over_classes(resampled_precisions(compared))
            found[path.stem[-1]] = float(mean_over_classes(compared.precisions)), resampled
        return found

    def mean(self, column: str, row: str) -> str:
        """mAP, the mean of the seeds."""
        values = [value for value, _ in self.of(column, row).values()]
        return f"{np.mean(values):.3f}" if values else NOT_RUN

    def gain(self, ours: tuple[str, str], theirs: tuple[str, str]) -> tuple[float, str]:
        """The difference of the seeds that both have, and its interval.

        Photos are resampled for all alike, and seeds too, so that a lucky one is no gain.
        """
        a, b = self.of(*ours), self.of(*theirs)
        both = sorted(a.keys() & b.keys())
        if not both:
            return float("nan"), NOT_RUN
        mean = float(np.mean([a[seed][0] - b[seed][0] for seed in both]))
        pairs = np.stack([a[seed][1] - b[seed][1] for seed in both])
        drawn = np.random.default_rng(0).integers(len(both), size=(pairs.shape[1], len(both)))
        resampled = np.take_along_axis(pairs.T, drawn, axis=1).mean(axis=1)
        low, high = interval(mean, resampled, lowest=-1.0) or (-1.0, 1.0)
        bold = "**" if low > 0 or high < 0 else ""
        return mean, f"{bold}{mean:+.3f}{bold} ({low:+.3f} to {high:+.3f})"


def tables(options: argparse.Namespace) -> Iterator[str]:
    """The table of each truth as Markdown: what each row gains, and which part of the oracle's."""
    columns, rows = options.columns, [row for row in options.rows if row != BASE]
    silence = {"0.1, the preset's": "tags", "1, the paper's": "silence"}
    for truth, named, title, *maps in options.truth:
        figures = Figures(options, truth, named, *maps)
        yield f"**mAP by {title}** ({figures.photos:,} photos, {len(figures.truth.system)} labels)"
        yield ""
        yield f"| row | seeds | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}"
        means = (figures.mean(column, BASE) for column in columns)
        yield f"| {BASE} | {seeds(figures, columns, BASE)} | {' | '.join(means)} |"
        oracle = {c: figures.gain((ORACLE, BASE), (c, BASE)) for c in columns if c != ORACLE}
        for row in rows:
            cells = []
            for column in columns:
                gain, text = figures.gain((column, row), (column, BASE))
                fraction = gain / oracle[column][0] if column in oracle else np.nan
                cells.append(text if np.isnan(fraction) else f"{text}, {fraction:.0%}")
            own = f"{row.replace('-', ' ')} | {seeds(figures, columns, row)}"
            yield f"| {own} | {' | '.join(cells)} |"
        cells = [oracle[column][1] if column in oracle else "" for column in columns]
        yield f"| captions in full | {seeds(figures, columns, BASE)} | {' | '.join(cells)} |\n"
        header = f"| missing mentions count, column `tags` | {BASE} | own | own - {BASE} |"
        yield f"{header}\n|---|---|---|---|"
        for weight, column in silence.items():
            crossed = [figures.mean(column, row) for row in (BASE, "own")]
            _, text = figures.gain((column, "own"), (column, BASE))
            yield f"| {weight} | {' | '.join(crossed)} | {text} |"
        (_, base), (_, both) = (
            figures.gain(("silence", row), ("tags", BASE)) for row in (BASE, "own")
        )
        yield f"| 1 - 0.1 | {base} | | {both}: own at 1 - {BASE} at 0.1 |\n"


def seeds(figures: Figures, columns: Sequence[str], row: str) -> str:
    """How many seeds the columns of a row have."""
    numbers = {len(figures.of(column, row)) for column in columns}
    return " to ".join(map(str, sorted(numbers)))


if __name__ == "__main__":
    main()
