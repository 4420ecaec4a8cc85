#!/usr/bin/env python3
"""The records and the figures of table5.mk.

    table5.py dropped parsed.jsonl ... --share 0.5       records without a share of their tags
    table5.py good parsed.jsonl --photos 1000            some photos
    table5.py classes truth.jsonl --fewest 4             tags of so many photos
    table5.py words classes.txt map.tsv ...              all names that the truths ask for
    table5.py predict SET... --model M --words W --cache C --out DIR
    table5.py put final.md --into scripts/reproduce/README.md   the tables into the document
    table5.py table --truth T --rows parsed generated --pairs generated:parsed ...

Which photos and which tags is decided by the photo's name alone.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import kept
import looks
import numpy as np
from cells import put_between_marks
from looks import Truth, read

from ramctl.classes import read_map
from ramctl.evaluation.metrics import interval, mean_over_classes
from ramctl.labels import LabelSystem


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    dropped = commands.add_parser("dropped")
    dropped.add_argument("records", type=Path, nargs="+")
    dropped.add_argument("--share", type=float, required=True)
    good = commands.add_parser("good")
    good.add_argument("records", type=Path)
    good.add_argument("--photos", type=int, required=True)
    classes = commands.add_parser("classes")
    classes.add_argument("truth", type=Path)
    classes.add_argument("--fewest", type=int, required=True)
    commands.add_parser("words").add_argument("files", type=Path, nargs="+")
    predict = commands.add_parser("predict")
    predict.add_argument("sets", type=Path, nargs="+")
    for name in ("model", "words", "cache", "out"):
        predict.add_argument(f"--{name}", type=Path, required=True)
    put = commands.add_parser("put")
    put.add_argument("tables", type=Path)
    put.add_argument("--into", type=Path, required=True)
    table = commands.add_parser("table")
    for name in ("truth", "classes", "labels", "predictions"):
        table.add_argument(f"--{name}", type=Path, required=True)
    table.add_argument("--map", type=Path)
    for name in ("seeds", "rows", "pairs"):
        table.add_argument(f"--{name}", nargs="+", required=True)
    options = parser.parse_args()
    if options.command == "table":
        print(figures(options))
        return
    if options.command == "put":
        put_between_marks(options.tables.read_text("utf-8").strip(), options.into, "table5")
        return
    if options.command == "words":
        print("\n".join(words(options.files)))
        return
    if options.command == "classes":
        counts = Counter(tag for row in read(options.truth) for tag in row["tags"])
        print("\n".join(tag for tag, n in counts.items() if n >= options.fewest))
        return
    if options.command == "predict":
        for records in options.sets:
            out = options.out / records.stem / f"{options.model.name}.jsonl"
            if not out.exists():
                kept.predict(records, options.model, options.words, options.cache, out)
        return
    rows = good_photos(options) if options.command == "good" else dropped_tags(options)
    for row in rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def good_photos(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records of `--photos` photos, in the order of the file."""
    rows = list(read(options.records))
    first = sorted(rows, key=lambda row: draw("good", row))[: options.photos]
    names = {row["image"] for row in first}
    return (row for row in rows if row["image"] in names)


def dropped_tags(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records without a share of their tags, whichever captions name them."""
    for row in (row for path in options.records for row in read(path)):
        stay = {tag for tag in row["tags"] if draw(f"drop:{tag}", row) >= options.share}
        row["tags"] = [tag for tag in row["tags"] if tag in stay]
        row["caption_tags"] = [[t for t in own if t in stay] for own in row["caption_tags"]]
        for field in ("kinds", "sources"):
            row[field] = {tag: value for tag, value in row[field].items() if tag in stay}
        yield row


def words(files: Sequence[Path]) -> list[str]:
    """The classes of lists, and the tags that maps give to classes."""
    found: dict[str, None] = {}
    for path in files:
        if path.suffix == ".tsv":
            found |= dict.fromkeys(tag for tags in read_map(path).values() for tag in tags)
        else:
            found |= dict.fromkeys(LabelSystem.read(path).tags)
    return list(found)


def draw(what: str, row: dict[str, Any]) -> float:
    """A number in [0, 1) that depends on the photo's name."""
    digest = hashlib.blake2b(f"{what}:{row['image']}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def figures(options: argparse.Namespace) -> str:
    """mAP of each row over its seeds, and each difference with its interval, as Markdown."""
    for row in options.rows:
        of = f"{row} of table 5, {len(options.seeds)} models"
        looks.log(options.truth.stem, of, "mAP and differences between rows (table 5)")
    truth = Truth.of_files(options.truth, options.classes, options.map)
    runs = {
        row: [Run(truth, options, f"{row}-{seed}") for seed in options.seeds]
        for row in options.rows
    }
    lines = [
        f"**{options.truth.stem}** ({len(runs[options.rows[0]][0].comparison.photos)} photos)",
        "",
        "| row | mAP, mean of seeds | spread of seeds |",
        "|---|---|---|",
    ]
    for row, own in runs.items():
        values = [run.map for run in own]
        lines.append(f"| {row} | {np.mean(values):.4f} | {spread(values)} |")
    lines += [
        "",
        "| difference | mAP | spread of seeds | 95 % over photos | |",
        "|---|---|---|---|---|",
    ]
    for pair in options.pairs:
        row, base = pair.split(":")
        if row in runs and base in runs:
            lines.append(difference(row, runs[row], base, runs[base]))
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """The standard deviation over seeds."""
    return f"{np.std(values, ddof=1):.4f}" if len(values) > 1 else "one seed"


class Run:
    """One model's predictions against the truth, and its mAP in every resample of the photos."""

    def __init__(self, truth: Truth, options: argparse.Namespace, name: str) -> None:
        predictions = options.predictions / f"{name}.jsonl"
        self.comparison = truth.compared(predictions, LabelSystem.read(options.labels))
        self.map = float(mean_over_classes(self.comparison.precisions))
        self.resampled = mean_over_classes(self.comparison.resampled(looks.SEED))


def difference(row: str, ours: Sequence[Run], base: str, theirs: Sequence[Run]) -> str:
    """A line of the table: seeds are paired, and photos are resampled for all runs alike.

    The resamples also draw the seeds again, so that a lucky one does not look like a gain.
    """
    gains = np.array([a.map - b.map for a, b in zip(ours, theirs, strict=True)])
    pairs = np.stack([a.resampled - b.resampled for a, b in zip(ours, theirs, strict=True)])
    random = np.random.default_rng(0)
    drawn = random.integers(len(gains), size=(pairs.shape[1], len(gains)))
    resampled = np.array([pairs[drawn[i], i].mean() for i in range(pairs.shape[1])])
    found = interval(float(gains.mean()), resampled, lowest=-1.0)
    low, high = found if found else (-1.0, 1.0)
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "cannot tell"
    return (
        f"| {row} - {base} | {gains.mean():+.4f} | {spread(gains.tolist())} "
        f"| {low:+.4f} to {high:+.4f} | {verdict} |"
    )


if __name__ == "__main__":
    main()
