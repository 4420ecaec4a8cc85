#!/usr/bin/env python3
"""Memory that building a label system takes: for N records, from the parsed captions of a sample.

    scripts/bench/label_memory.py CAPTIONS.jsonl.gz... [-n 1000000] [--sample 20000]

Parsing a million records takes a quarter of an hour of a core, so the captions of a sample are
parsed and cut in two; each record's captions join a half of one to a half of another, in an order
of their own. Words and phrases that were not met before grow with the square root of the captions,
as they do in the corpora. Prints megabytes at the peak: with the parser loaded, with all captions
counted, and with the system built.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from measuring import peak_mb

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.label_building.label_builder import LabelBuilder
from ramctl.parsing.label_building.tag_counts import TagCounts
from ramctl.parsing.parsed_caption import Mention, ParsedCaption
from ramctl.parsing.parser import CaptionParser
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record, captions_of

# By the square root of the captions: in 356,000 of them 24,000 and 119,000; the corpora have 13,800
# and 24,000.
NEW_WORDS = 40
NEW_PHRASES = 200


def recombined(parsed: list[ParsedCaption], n: int) -> Iterator[ParsedCaption]:
    """n captions, each of the first half of one and the second half of another."""
    draw = random.Random(0)
    for i in range(n):
        one, other = draw.choice(parsed), draw.choice(parsed)
        half, rest = one.mentions, other.mentions
        found = (*half[: len(half) // 2], *rest[len(rest) // 2 :])
        phrases = other.phrases
        rate = 0.5 / (i + 1) ** 0.5
        if draw.random() < NEW_WORDS * rate:
            found = (*found, Mention(0, f"word{i}", "object", f"word{i}", "invented"))
        if draw.random() < min(NEW_PHRASES * rate, 1.0):
            phrases = (*phrases, f"word {i}")
        yield ParsedCaption.of(found, phrases)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("files", nargs="+")
    arguments.add_argument("-n", type=int, default=1_000_000, help="records")
    arguments.add_argument("--sample", type=int, default=20_000, help="captions to parse")
    args = arguments.parse_args()

    records = [x for x in read_inputs(args.files, None, "bench") if isinstance(x, Record)]
    captions = [caption for record in records for caption in captions_of(record.fields)]
    per_record = len(captions) / len(records)
    random.Random(0).shuffle(captions)
    parsed = list(CaptionParser.open().parse(islice(captions, args.sample)))
    print(f"with the parser: {peak_mb():.0f} MB")
    counts = TagCounts(recombined(parsed, round(args.n * per_record)))
    n_distinct = len(counts.captions), len(counts.phrases)
    print(f"{args.n} records, {round(args.n * per_record)} captions counted: {peak_mb():.0f} MB; "
          f"{n_distinct[0]} distinct tags, {n_distinct[1]} phrases")  # fmt: skip
    labels, _ = LabelBuilder(counts, Lexicon.shared()).build({})
    print(f"{len(labels)} labels built: {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
