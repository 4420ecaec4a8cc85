#!/usr/bin/env python3
"""Print the records of four fifths of the origins, or with --dev those of the last fifth.

    scripts/mini/split_origins.py [--dev] web-captioned.jsonl

Photos of one repository are alike. A hash of its name draws the fifth, so that it stays the same;
these photos are for choices and are never trained on.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

PARTS = 5


def is_dev(origin: str) -> bool:
    """Whether photos of an origin, `owner/name:path`, are in the development fifth."""
    repository = origin.partition(":")[0]
    return int(hashlib.sha256(repository.encode()).hexdigest(), 16) % PARTS == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("records", type=Path)
    args = parser.parse_args()
    for line in args.records.open(encoding="utf-8"):
        if is_dev(json.loads(line)["origin"]) == args.dev:
            sys.stdout.write(line)


if __name__ == "__main__":
    main()
