#!/usr/bin/env python3
"""Measure a label system against a tag list that it was not built from.

    ramctl parse --build-labels labels.jsonl --review review.tsv CAPTIONS.jsonl.gz...
    scripts/reproduce/labels.py --labels labels.jsonl --review review.tsv \\
        --tags ram_tag_list.txt -- CAPTIONS.jsonl.gz...

Prints how many of the tags that occur often enough in the captions are labels or synonyms, how
many of the most frequent labels are in the tag list, and a random sample of the merges, for a
person to read. A tag occurs where its words stand, as they are or as base forms; repeated
captions count once.
"""

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from ramctl.labels import LabelSystem, normalise
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.label_building.label_builder import read_review
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record, captions_of

TOKEN = re.compile(r"[a-z]+(?=n't)|n't|'s|[a-z]+|\d[\d.,]*|[^\sa-z0-9-]")


def occurrences(files: list[str], tags: set[str]) -> Counter[str]:
    """In how many distinct captions each tag stands."""
    lexicon = Lexicon.shared()
    longest: dict[str, int] = {}
    for tag in tags:
        words = tag.split(" ")
        longest[words[0]] = max(longest.get(words[0], 0), len(words))
    counts: Counter[str] = Counter()
    seen: set[str] = set()
    for item in read_inputs(files, None, "labels"):
        captions = captions_of(item.fields) if isinstance(item, Record) else []
        for caption in captions:
            if caption not in seen:
                seen.add(caption)
                words = TOKEN.findall(normalise(caption))
                counts.update(tags_in(words, tags, longest, lexicon))
    print(f"{len(seen)} distinct captions")
    return counts


def tags_in(
    words: list[str], tags: set[str], longest: dict[str, int], lexicon: Lexicon
) -> set[str]:
    nouns = [lexicon.noun(word) for word in words]
    verbs = [lexicon.verb(word) for word in words]
    found = set()
    for forms in (words, nouns, verbs):
        for i, form in enumerate(forms):
            for n in range(1, longest.get(form, 0) + 1):
                found.add(" ".join(forms[i : i + n]))
                found.add(" ".join([*words[i : i + n - 1], *nouns[i + n - 1 : i + n]]))
    return found & tags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("captions", nargs="+")
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--review", required=True, type=Path)
    parser.add_argument("--tags", required=True, type=Path, help="a tag a line")
    parser.add_argument("--min-count", type=int, default=20)
    parser.add_argument("--top", type=int, default=1000)
    parser.add_argument("--merges", type=int, default=200)
    args = parser.parse_args()

    labels = LabelSystem.read(args.labels)
    lines = args.tags.read_text(encoding="utf-8").splitlines()
    tags = {normalise(line) for line in lines if line.strip()}
    counts = occurrences(args.captions, tags)

    n_strings = sum(1 + len(label.synonyms) for label in labels)
    print(f"{len(labels)} labels, {n_strings} strings")
    often = sorted(tag for tag in tags if counts[tag] >= args.min_count)
    missed = [tag for tag in often if not labels.ids(tag)]
    covered = 1 - len(missed) / len(often)
    print(f"tags in {args.min_count} captions or more: {len(often)}, covered {covered:.4f}")
    top = labels[: args.top]
    by_tag = sum(normalise(label.tag) in tags for label in top)
    by_any = sum(any(normalise(s) in tags for s in (x.tag, *x.synonyms)) for x in top)
    print(f"of the {len(top)} most frequent labels: {by_tag / len(top):.3f} in the list, "
          f"{by_any / len(top):.3f} with a synonym's name")  # fmt: skip
    merges = [row for row in read_review(args.review).values() if row.decision == "synonym"]
    sample = random.Random(0).sample(merges, min(args.merges, len(merges)))
    print(f"{len(sample)} of {len(merges)} merges:")
    for row in sorted(sample, key=lambda row: row.tag):
        print(f"  {row.tag} -> {row.of}  ({row.reason}; {row.count} captions)")
    print("missed:", ", ".join(sorted(missed, key=lambda tag: -counts[tag])))


if __name__ == "__main__":
    main()
