#!/usr/bin/env python3
"""Hold a fifth of the labels out of a label system, to be asked for as new words.

    scripts/mini/hold_out.py labels.jsonl judged.jsonl --kept kept.jsonl --held held.txt

Which labels is decided by their names alone. Those that are right on four judged photos or more
are listed in `held.txt`: of them it can be said how well they are found.
"""

import argparse
import hashlib
import json
from collections import Counter
from pathlib import Path

MIN_PHOTOS = 4  # on which a word is right, so that its ranking says something
SHARE = 0.2


def is_held(tag: str) -> bool:
    """Whether a label is held out."""
    digest = hashlib.blake2b(tag.encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48 < SHARE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("judged", type=Path)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--held", type=Path, required=True)
    args = parser.parse_args()
    labels = [json.loads(line) for line in args.labels.open(encoding="utf-8")]
    kept = []
    for label in labels:
        if is_held(label["tag"]):
            continue
        parents = [parent for parent in label.pop("parents", ()) if not is_held(parent)]
        kept.append(label | ({"parents": parents} if parents else {}))
    right = Counter(
        tag for line in args.judged.open(encoding="utf-8") for tag in json.loads(line)["tags"]
    )
    held = [
        label["tag"]
        for label in labels
        if is_held(label["tag"]) and right[label["tag"]] >= MIN_PHOTOS
    ]
    lines = (json.dumps(label, ensure_ascii=False) + "\n" for label in kept)
    args.kept.write_text("".join(lines), encoding="utf-8")
    args.held.write_text("".join(f"{tag}\n" for tag in held), encoding="utf-8")


if __name__ == "__main__":
    main()
