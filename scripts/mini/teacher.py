#!/usr/bin/env python3
"""Print teachers' records without the names that mean nothing to people.

    scripts/mini/teacher.py --useless useless_names.txt -- SET.MODEL.jsonl...

The screens that a detector sees in the archive's slides (tv, laptop in fsa-train) are their mounts.
"""

import argparse
import json
from pathlib import Path

MOUNTS = {"tv", "laptop"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--useless", type=Path, required=True)
    parser.add_argument("scores", nargs="+", type=Path)
    args = parser.parse_args()
    useless = set(args.useless.read_text("utf-8").splitlines())
    for path in args.scores:
        left_out = useless | (MOUNTS if path.name.startswith("fsa-") else set())
        for line in path.open(encoding="utf-8"):
            record = json.loads(line)
            scores = {n: s for n, s in record["scores"].items() if n not in left_out}
            print(json.dumps(record | {"scores": scores}, ensure_ascii=False))


if __name__ == "__main__":
    main()
