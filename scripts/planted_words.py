#!/usr/bin/env python3
"""Measure how many made-up things in captions `ramctl clean` finds, and what it takes with them.

    scripts/planted_words.py clothing.jsonl --words dishes.jsonl
    scripts/planted_words.py clothing.jsonl -- --threshold 0.01 --min-probability 0

A thing that the caption does not name is planted into the last caption of each record: one that
captions of FILE, or of --words, name three times or more. `parse --labels mini` and `clean`, with
the options after --, then process the records. Prints one object: `found`, the fraction of planted
things that clean removed, and `lost`, the fraction of the captions' own things.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from venv_python import ROOT, use_venv

use_venv("spacy", "torch")

Row = dict[str, Any]
MIN_NAMED = 3  # times that captions name a thing which is planted


def ramctl(*words: str, rows: list[Row]) -> list[Row]:
    """The records that a command makes of records."""
    command = [sys.executable, "-m", "ramctl", *words]
    given = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_parsed(path: Path) -> list[Row]:
    """The records of a file with the tags that its captions name."""
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return ramctl("parse", "-q", "--labels", "mini", rows=rows)


def things(row: Row) -> set[str]:
    """The objects among the tags of a record."""
    return {tag for tag in row["tags"] if row["kinds"][tag] == "object"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("records", type=Path, help="JSONL with image and captions")
    parser.add_argument("--words", type=Path, metavar="FILE", help="captions that name the things")
    parser.add_argument("--seed", type=int, default=0)
    given = sys.argv[1:] if arguments is None else arguments
    n_given = given.index("--") if "--" in given else len(given)
    options, clean_options = parser.parse_args(given[:n_given]), given[n_given + 1 :]
    draw = random.Random(options.seed)
    rows = read_parsed(options.records)
    named = Counter(thing for row in read_parsed(options.words or options.records)
                    for thing in sorted(things(row)))  # fmt: skip
    pool = [thing for thing, number in named.items() if number >= MIN_NAMED]
    planted = []
    for row in rows:
        text = " ".join(row["captions"]).lower()
        planted.append(draw.choice([w for w in pool if w not in row["tags"] and w not in text]))
        row["captions"][-1] = row["captions"][-1].rstrip(".") + f", and a {planted[-1]}."
    before = ramctl("parse", "-q", "--labels", "mini", rows=rows)
    root = str(options.records.resolve().parent)
    after = ramctl("clean", "-q", "--root", root, *clean_options, rows=before)
    n_planted = n_found = n_own = n_lost = 0
    for word, old, new in zip(planted, before, after, strict=True):
        own = things(old) - {word}
        n_planted += word in old["tags"]
        n_found += word in old["tags"] and word not in new["tags"]
        n_own += len(own)
        n_lost += len(own - {*new["tags"]})
    counts = {"planted": n_planted, "found": n_found / n_planted, "own": n_own}
    print(json.dumps(counts | {"lost": n_lost / n_own}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
