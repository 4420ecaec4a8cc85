#!/usr/bin/env python3
"""CIDEr of generated captions against people's, by the package pycocoevalcap.

    ramctl tag --caption photos.jsonl | scripts/bench/captions.py --truth photos.jsonl -

Captions are compared as lower-case words without punctuation, as Flickr8k's own are written. The
weights of words come from the captions of the truth, so compare only figures of the same photos.
Photos without a caption are counted, and left out of the other figures.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("pycocoevalcap")

from pycocoevalcap.cider.cider_scorer import CiderScorer

WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def words(caption: str) -> str:
    """The caption's words, joined by spaces."""
    return " ".join(WORD.findall(caption.lower()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("captions", nargs="+", help="JSONL with generated_captions; -: stdin")
    args = parser.parse_args()
    truth = {}
    for line in args.truth.open(encoding="utf-8"):
        record = json.loads(line)
        truth[record["image"]] = [words(caption) for caption in record["captions"]]
    for name in args.captions:
        scorer, lengths, different, none = CiderScorer(), [], set(), 0
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        for line in text.splitlines():
            record = json.loads(line)
            if not record["generated_captions"]:
                none += 1
                continue
            caption = words(record["generated_captions"][0])
            scorer += (caption, truth[record["image"]])
            lengths.append(len(caption.split()))
            different.add(caption)
        mean, _ = scorer.compute_score()
        facts = {
            "CIDEr": round(100 * float(mean), 1),
            "words": round(sum(lengths) / len(lengths), 1),
            "different": len(different),
            "photos": len(lengths),
            "none": none,
        }
        if args.json:
            print(json.dumps(facts))
        else:
            print(f"{name}: " + ", ".join(f"{key} {number}" for key, number in facts.items()))


if __name__ == "__main__":
    main()
