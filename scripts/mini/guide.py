#!/usr/bin/env python3
"""Print captioned records whose captions are guided by the tags that a model gives the photo.

    ramctl tag --root PHOTOS records.jsonl | scripts/mini/guide.py > guided.jsonl

A captioner that learnt with each caption's own words as tags strings together whatever tags it is
given; in use these are the model's.
"""

import json
import sys


def main() -> None:
    for line in sys.stdin:
        record = json.loads(line)
        captions, tags = record.get("captions"), record["tags"]
        if captions:
            guided = {"image": record["image"], "captions": captions, "tags": tags}
            guided["caption_tags"] = [tags] * len(captions)
            print(json.dumps(guided, ensure_ascii=False))


if __name__ == "__main__":
    main()
