#!/usr/bin/env python3
"""CIDEr of generated captions against people's, by the package pycocoevalcap, as JSON.

    ramctl tag --caption photos.jsonl | scripts/mini/captions.py photos.jsonl

Captions are compared as lower-case words without punctuation, as Flickr8k's own are written. The
weights of words come from the captions of the truth, so compare only figures of the same photos.
Photos without a caption are counted, and left out of CIDEr.
"""

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
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    truth = {}
    for record in map(json.loads, Path(sys.argv[1]).read_text("utf-8").splitlines()):
        truth[record["image"]] = [words(caption) for caption in record["captions"]]
    scorer, n_photos, none = CiderScorer(), 0, 0
    for record in map(json.loads, sys.stdin):
        if not record["generated_captions"]:
            none += 1
            continue
        scorer += (words(record["generated_captions"][0]), truth[record["image"]])
        n_photos += 1
    mean, _ = scorer.compute_score()
    print(json.dumps({"CIDEr": round(100 * float(mean), 1), "photos": n_photos, "none": none}))


if __name__ == "__main__":
    main()
