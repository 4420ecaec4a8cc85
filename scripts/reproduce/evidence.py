#!/usr/bin/env python3
"""How well each kind of evidence tells the right ones among the tags that `generate` added.

    evidence.py draw photos.jsonl ... --judged judged_generated.jsonl --number 1200 \\
        --one one.jsonl --others others.jsonl
        of the judged photos and of so many others a file: one caption for the engine, the other
        ones for the judgement
    evidence.py measure WORK --judged judged_generated.jsonl --captions others-parsed.jsonl \\
        [--evidence FILE ...]
        WORK comes from `ramctl clean --kinds all --work WORK --stage detect`

evidence.mk does all of it.

A generated tag is right if whoever judged the photo said so (doubtful ones do not count), or if one
of the other captions names it: the caption that the engine saw never judges. Prints the area under
the ROC curve of the model's own score, of each kind of evidence alone and of what they add up to;
how many tags the rule removes, and how many of these and of the others are right; then what becomes
of the tags that the caption itself named.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("sklearn")

import numpy as np
from sklearn.metrics import roc_auc_score

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.data_engine.evidence import (
    MIN_PROBABILITY,
    NAMES,
    OutOfFold,
    estimate,
    is_mentioned,
    label_rates,
    score_log_odds,
)
from ramctl.data_engine.region_store import RegionIndex, WorkFolder
from ramctl.decide.calibration import Calibration


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("draw")
    part.add_argument("photos", type=Path, nargs="+", help="records with captions")
    part.add_argument("--judged", type=Path, required=True)
    part.add_argument("--number", type=int, default=1200)
    part.add_argument("--seed", type=int, default=0)
    part.add_argument("--one", type=Path, required=True)
    part.add_argument("--others", type=Path, required=True)
    told = commands.add_parser("measure")
    told.add_argument("work", type=Path)
    told.add_argument("--model", default="mini")
    told.add_argument("--evidence", action="append", default=[], metavar="FILE")
    told.add_argument("--judged", type=Path)
    told.add_argument("--captions", type=Path, help="the other captions, parsed")
    options = parser.parse_args()
    if options.command == "draw":
        draw(options)
    else:
        print(json.dumps(measure(options), indent=1))


def draw(options: argparse.Namespace) -> None:
    """Part the captions of photos drawn at random."""
    judged = {json.loads(line)["image"] for line in options.judged.open()}
    random_ = random.Random(options.seed)
    with options.one.open("w") as one, options.others.open("w") as others:
        for path in options.photos:
            rows = [json.loads(line) for line in path.open()]
            drawn = {row["image"] for row in random_.sample(rows, min(options.number, len(rows)))}
            for row in rows:
                if row["image"] not in drawn | judged:
                    continue
                for out, captions in ((one, row["captions"][:1]), (others, row["captions"][1:])):
                    if captions:
                        found = {"image": row["image"], "captions": captions}
                        out.write(json.dumps(found) + "\n")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one work folder by each judgement that is there."""
    files = tuple(map(Path, options.evidence))
    bundle = Bundle.open(resolve_model(options.model))
    calibration = Calibration.if_known(bundle)
    rates = label_rates(calibration)
    work = WorkFolder(options.work)
    index = RegionIndex(work.shards())
    regions = index.columns()
    said = OutOfFold(index).kinds(files)
    own = score_log_odds(regions["photo_score"], regions["label"], calibration)
    alone = {f"with {n} {NAMES[kind]}": ((kind, x),) for n, (kind, x) in enumerate(said)}
    kinds = {"own score": ()} | alone
    found = {
        name: estimate(own, regions["label"], regions["sources"], some, rates)
        for name, some in {**kinds, "all": tuple(said)}.items()
    }
    places = tags_of(work, index)
    result: dict[str, Any] = {"regions": len(regions), "min probability": MIN_PROBABILITY}
    named = is_mentioned(regions["sources"])
    for judge, right in judgements(options).items():
        truth = np.array([right(*place) for place in places])  # 1, 0, -1 for unknown
        new, old = (truth >= 0) & ~named, (truth >= 0) & named
        result[judge] = {"tags": int(new.sum()), "right": round(float(truth[new].mean()), 3)}
        for name, estimated in found.items():
            auc = roc_auc_score(truth[new], estimated.probability[new])
            gone = estimated.probability < MIN_PROBABILITY
            result[judge][name] = {"auc": round(float(auc), 3)} | shares(truth, gone, new)
        if old.any():
            gone = found["all"].probability < MIN_PROBABILITY
            result[judge]["named by the caption"] = shares(truth, gone, old)
    return result


def shares(truth: np.ndarray, gone: np.ndarray, among: np.ndarray) -> dict[str, Any]:
    """How many of some tags go, and the right ones among those that go and that stay."""
    parts = {"of those that go": among & gone, "of those that stay": among & ~gone}
    told = {f"right {k}": round(float(truth[m].mean()), 3) for k, m in parts.items() if m.any()}
    return {"go": int((among & gone).sum()), **told}


def tags_of(work: WorkFolder, index: RegionIndex) -> list[tuple[str, str]]:
    """The photo and the tag of each region."""
    records = iter(work.inputs(index.shards))
    found = []
    for shard in index.shards:
        own = [next(records) for _ in range(shard.facts["inputs"])]
        for region in shard.regions:
            fields = own[region["input"]].fields
            found.append((fields["image"], fields["tags"][region["place"]]))
    return found


def judgements(options: argparse.Namespace) -> dict[str, Any]:
    """By judge a function of photo and tag: 1 right, 0 wrong, -1 unknown."""
    judges = {}
    if options.judged:
        rows = [json.loads(line) for line in options.judged.open()]
        verdicts = {
            (row["image"], tag): right
            for row in rows
            for right, said in ((1, "right"), (0, "wrong"))
            for tag in row.get(said, ())
        }
        judges["looked at"] = lambda image, tag: verdicts.get((image, tag), -1)
    if options.captions:
        rows = [json.loads(line) for line in options.captions.open()]
        named = {row["image"]: set(row["tags"]) for row in rows}
        judges["other captions"] = lambda image, tag: (
            int(tag in named[image]) if image in named else -1
        )
    return judges


if __name__ == "__main__":
    main()
