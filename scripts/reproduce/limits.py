#!/usr/bin/env python3
"""The limits that the paper names, measured: fine-grained classes, counting, co-occurrence.

    limits.py --shared S --work W

Writes W/limits.md and .json. Predictions of the embedded model; those of tables.py are used where
they are there. Counting is measured on flickr8k-dev.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import looks
import numpy as np
from looks import Truth, read
from operating_point import decide
from tables import PAPER, Tables, ramctl

from ramctl.evaluation.comparison import Comparison
from ramctl.evaluation.metrics import NEGATIVE, POSITIVE, interval
from ramctl.evaluation.truth import TruthTable
from ramctl.labels import LabelSystem

MIN_KINDS = 10  # of a parent, to be a group of fine-grained classes
COUNTING = ("one", "two", "three", "four", "five", "pair", "couple", "several", "group", "crowd")
MIN_PHOTOS = 5
COMPANIONS = 8  # photos with and without the companion, to say something


def fine_grained(tables: Tables) -> list[dict[str, Any]]:
    """mAP of ImageNet's classes by their everyday parent, by `eval --groups`."""
    name, folder = "imagenet1k_sample", tables.shared / "data" / "eval"
    truth = Truth.of_set(name, folder, None)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for row in read(folder / f"{name}.jsonl"):
        groups[row["parents"][0] if row["parents"] else "others"] += row["tags"]
    lines = {parent: kinds for parent, kinds in groups.items() if len(kinds) >= MIN_KINDS}
    single = [kinds[0] for parent, kinds in groups.items() if len(kinds) == 1]
    lines["the only one of its kind"] = single
    tables.sets[name] = {"name": name, "map": "", "seen": {}}
    predictions = tables.predicted("mini", name, truth)
    where = tables.work / "limits"
    where.mkdir(parents=True, exist_ok=True)
    listed = where / "groups.tsv"
    listed.write_text("".join(f"{name}\t{'|'.join(own)}\n" for name, own in lines.items()), "utf-8")

    def make() -> dict[str, Any]:
        out = where / "groups.json"
        ramctl(
            "eval", str(predictions), "--truth", str(folder / f"{name}.jsonl"), "--classes",
            str(truth.origin), "--groups", str(listed), "--ci", "-q", "-o", str(out),
        )  # fmt: skip
        counted: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return counted

    look = (name, "mini", "mAP of groups of fine-grained classes (limits)")
    found = looks.kept(where / "fine.json", predictions, make, look)
    rows = [{"group": group, **figures} for group, figures in found["groups"].items()]
    return sorted(rows, key=lambda row: -row["mAP"])


def counting_truth(tables: Tables) -> Path:
    """flickr8k-dev with counting words as tags: named in two captions; uncertain where in one."""
    path = tables.work / "limits" / "counting.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in read(tables.shared / "data" / "photos" / "flickr8k-dev.jsonl"):
        captions = [set(caption.lower().split()) for caption in row["captions"]]
        n = {word: sum(word in own for own in captions) for word in COUNTING}
        tags = [word for word, many in n.items() if many >= 2]
        doubtful = [word for word, many in n.items() if many == 1]
        lines.append(json.dumps({"image": row["image"], "tags": tags, "uncertain": doubtful}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def counting(tables: Tables) -> list[dict[str, Any]]:
    """AP of counting words, beside the mean AP of things that are named as often."""
    path = counting_truth(tables)
    words = path.with_name("counting_words.txt")
    words.write_text("\n".join(COUNTING) + "\n", "utf-8")
    predictions = path.with_name("counted.jsonl")
    if not predictions.exists():
        ramctl(
            "tag", str(path), "--root", str(tables.shared / "data" / "photos"), "--labels",
            str(words), "--dense", "-o", str(predictions),
        )  # fmt: skip
    system = LabelSystem.read(words)
    own = Truth("flickr8k_dev", TruthTable.read(str(path), looks.intake()), system, words, {})
    things = tables.truth("flickr8k_dev")
    others = by_frequency(things.compared(tables.predicted("mini", "flickr8k_dev", things)))
    rows = []
    for word, (fraction, precision) in zip(
        COUNTING, by_frequency(own.compared(predictions)), strict=True
    ):
        if fraction * 1000 < MIN_PHOTOS:
            continue
        near = sorted(others, key=lambda other: abs(np.log(other[0] / fraction)))[:10]
        like = float(np.mean([ap for _, ap in near]))
        rows.append({"word": word, "fraction": fraction, "AP": precision, "AP_of_things": like})
    return rows


def by_frequency(comparison: Comparison) -> list[tuple[float, float]]:
    """The fraction of photos that have each class, and its average precision."""
    positive = (comparison.truth == POSITIVE).sum(0)
    known = positive + (comparison.truth == NEGATIVE).sum(0)
    fractions = positive / np.maximum(known, 1)
    return list(zip(fractions.tolist(), np.nan_to_num(comparison.ranked).tolist(), strict=True))


def companions(comparison: Comparison) -> list[tuple[int, int]]:
    """Each class with the class that it occurs with far more often than by chance."""
    true = (comparison.truth == POSITIVE).astype(float)
    together, alone = true.T @ true, true.sum(0)
    lift = together * len(true) / np.maximum(np.outer(alone, alone), 1)
    np.fill_diagonal(lift, 0)
    found = []
    for c in range(len(alone)):
        able = together[c] >= COMPANIONS
        able &= (alone[c] - together[c] >= COMPANIONS) & (alone - together[c] >= COMPANIONS)
        if able.any():
            found.append((c, int(np.argmax(np.where(able, lift[c], 0)))))
    return found


def co_occurrence(comparison: Comparison) -> dict[str, Any]:
    """How a class's recall and false alarms depend on whether its companion is in the photo.

    Means over classes, tags given at the best OF1, with intervals over the classes.
    """
    decided = decide(comparison)
    given = np.unpackbits(decided.packed, axis=1, count=len(comparison.classes)).astype(bool)
    true = comparison.truth == POSITIVE
    pairs = companions(comparison)
    rates = np.array(
        [
            [given[rows, c].mean() for rows in (
                true[:, c] & true[:, o], true[:, c] & ~true[:, o],
                ~true[:, c] & true[:, o], ~true[:, c] & ~true[:, o],
            )]
            for c, o in pairs
        ]
    )  # fmt: skip
    random = np.random.default_rng(0)
    drawn = rates[random.integers(len(rates), size=(1000, len(rates)))].mean(1)
    names = ("recall_with", "recall_without", "false_with", "false_without")
    means = rates.mean(0)
    gaps = {
        "recall_gap": interval(float(means[0] - means[1]), drawn[:, 0] - drawn[:, 1], lowest=-1.0),
        "false_gap": interval(float(means[2] - means[3]), drawn[:, 2] - drawn[:, 3], lowest=-1.0),
    }
    return {"classes": len(pairs), **dict(zip(names, means.tolist(), strict=True)), **gaps}


def text_of(
    fine: list[dict[str, Any]], counted: list[dict[str, Any]], biased: dict[str, dict[str, Any]]
) -> str:
    """The limits as Markdown."""
    lines = [
        "**Limits that the paper names**", "",
        "Fine-grained classes: one photo each of 694 of ImageNet's classes, ranked by 998 names "
        "(mAP by the everyday parent; a class by chance has some 0.01).", "",
        "| parent | classes | mAP | 95 % |", "|---|---|---|---|",
    ]  # fmt: skip
    for row in fine:
        low, high = row["mAP_ci"] or (0.0, 1.0)
        lines.append(
            f"| {row['group']} | {row['averaged_classes']} | {row['mAP']:.3f} "
            f"| {low:.3f} to {high:.3f} |"
        )
    lines += [
        "", "Counting, on flickr8k-dev: words that two of five captions use, and the ten classes "
        "nearest in frequency.", "",
        "| word | photos | AP | AP of things as frequent |", "|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {row['word']} | {row['fraction']:.1%} | {row['AP']:.3f} | {row['AP_of_things']:.3f} |"
        for row in counted
    ]
    lines += [
        "", "Co-occurrence, on COCO-80's 368 photos: each class and the one that it is most bound "
        "to, given at the best OF1.", "",
        "| system | classes | recall with / without the companion | gap, 95 % "
        "| false alarms with / without | gap, 95 % |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for system, own in biased.items():
        gaps = [f"{own[g][0]:+.3f} to {own[g][1]:+.3f}" for g in ("recall_gap", "false_gap")]
        lines.append(
            f"| {system} | {own['classes']} | {own['recall_with']:.3f} / "
            f"{own['recall_without']:.3f} | {gaps[0]} | {own['false_with']:.3f} / "
            f"{own['false_without']:.3f} | {gaps[1]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("shared", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    sets = [own["name"] for own in PAPER["sets"]]
    more = {"data": Path("/nonexistent"), "weights": None, "predictions": None, "sets": sets}
    tables = Tables(argparse.Namespace(**vars(options), **more))
    coco, biased = "coco80_val", {}
    for system in ("mini", "probe"):
        truth = tables.truth(coco)
        predictions = tables.predicted(system, coco, truth)

        def make(truth: Truth = truth, predictions: Path = predictions) -> dict[str, Any]:
            return co_occurrence(truth.compared(predictions))

        look = (coco, system, "recall and false alarms by companion class (limits)")
        path = options.work / "limits" / f"co-occurrence.{system}.json"
        biased[system] = looks.kept(path, predictions, make, look)
    fine, counted = fine_grained(tables), counting(tables)
    text = text_of(fine, counted, biased)
    (options.work / "limits.md").write_text(text, "utf-8")
    found = {"fine_grained": fine, "counting": counted, "co_occurrence": biased}
    (options.work / "limits.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
