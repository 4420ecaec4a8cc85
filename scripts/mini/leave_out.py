#!/usr/bin/env python3
"""Print the records of caption files whose photo is in none of the files given with --not.

    scripts/mini/leave_out.py --not eval/coco80_val.jsonl photos/flickr8k-test.jsonl -- *.jsonl.gz

Photos are told apart by collection (COCO, Flickr) and number: Flickr30k and Flickr8k name the same
photo alike, COCO's file names have leading zeros. Captions that several files repeat are printed
once, so that a label system counts them once.
"""

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def records(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def photo_id(record: dict[str, Any]) -> tuple[str, str] | None:
    """The collection and the photo's number in it; None for other collections."""
    source = record.get("source", "")
    collection = next((name for name in ("coco", "flickr") if name in source), None)
    number = re.match(r"\d+", re.split(r"[/#]", record["image"])[-1])
    return (collection, number[0].lstrip("0")) if collection and number else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--not", dest="left_out", nargs="+", type=Path, required=True)
    parser.add_argument("captions", nargs="+", type=Path)
    args = parser.parse_args()
    evaluated = {photo_id(record) for path in args.left_out for record in records(path)}
    evaluated.discard(None)
    seen: set[str] = set()
    n_left_out = 0
    for path in args.captions:
        for record in records(path):
            if photo_id(record) in evaluated:
                n_left_out += 1
                continue
            new = [caption for caption in record["captions"] if caption not in seen]
            seen.update(new)
            if new:
                print(json.dumps({"image": record["image"], "captions": new}, ensure_ascii=False))
    print(f"left out {n_left_out} records, {len(seen)} captions remain", file=sys.stderr)


if __name__ == "__main__":
    main()
