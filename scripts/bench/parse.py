#!/usr/bin/env python3
"""Time the parser against spaCy's default pipeline in one run, and check what speed costs.

    scripts/bench/parse.py CAPTIONS.jsonl.gz... [--labels labels.jsonl] [-n 4000] [--rounds 3]

Prints captions a second of CPU time on one core (median of rounds, the ways taken in turn), the
ratios to the same spaCy model with its default pipeline, and milliseconds a kilobyte of text; the
share of captions of which no word is ambiguous; and how well the closed mode agrees with open mode
and mapping on captions that the table of readings was not counted on.
"""

import argparse
import gc
import platform
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("spacy")

import spacy
from build_readings import is_held_out
from measuring import core_seconds

from ramctl.labels import LabelSystem
from ramctl.parsing.captions import ParsedCaption
from ramctl.parsing.closed_mode import LabelMapper
from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import MODEL_PACKAGES, PosTagger
from ramctl.parsing.english.readings import FrequentReadings
from ramctl.parsing.english.rules.sentence import clean
from ramctl.parsing.parser import CaptionParser
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record, captions_of

Way = tuple[list[str], Callable[[list[str]], object]]  # captions, and what is done with them
HOLD_OUT = 0.05
MANY = 14_000_000  # captions of the paper's larger set


def held_out_captions(files: Sequence[str], n: int) -> list[str]:
    """n distinct captions of images that scripts/build_readings.py leaves out."""
    captions = dict.fromkeys(
        caption
        for record in read_inputs(files, None, "bench")
        if isinstance(record, Record) and is_held_out(record.fields.get("image"), HOLD_OUT)
        for caption in captions_of(record.fields)
    )
    return random.Random(0).sample(sorted(captions), min(n, len(captions)))


def agreement(closed: Sequence[ParsedCaption], mapped: Sequence[ParsedCaption]) -> float:
    """(share of tags in both, captions that differ) as an F1 over (caption, tag) pairs."""
    both = sum(len(set(a.tags) & set(b.tags)) for a, b in zip(closed, mapped, strict=True))
    total = sum(len(a.tags) + len(b.tags) for a, b in zip(closed, mapped, strict=True))
    return 2 * both / total


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("files", nargs="+")
    arguments.add_argument("--labels", type=Path, required=True)
    arguments.add_argument("-n", type=int, default=4000)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()

    captions = held_out_captions(args.files, args.n)
    labels = LabelSystem.read(args.labels)
    model = next(name for name in MODEL_PACKAGES if spacy.util.is_package(name))
    nlp = spacy.load(model)
    frequent = FrequentReadings.shared(Lexicon.shared())
    sure = [caption for caption in captions if frequent.read(clean(caption)) is not None]
    ways: dict[str, Way] = {
        "spaCy, default pipeline": (captions, lambda some: list(nlp.pipe(some))),
        "its tagger alone, as we run it": (
            captions,
            lambda some: list(PosTagger.shared().tag(map(clean, some))),
        ),
        "open mode": (captions, lambda some: list(CaptionParser.open().parse(some))),
        "closed mode": (captions, lambda some: list(CaptionParser.closed(labels).parse(some))),
    }
    if sure:  # long captions all have an ambiguous word
        ways["closed mode, no ambiguous word"] = (sure, ways["closed mode"][1])
    for some, work in ways.values():
        work(some)
    gc.collect()
    gc.freeze()  # as `ramctl parse` does: lexicon and models stay, for spaCy's way too
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, (some, work) in ways.items():
            times[name].append(core_seconds(partial(work, some)))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
          f"spaCy {version('spacy')}, {len(captions)} captions, {args.rounds} rounds")  # fmt: skip
    base = None
    for name, taken in times.items():
        some, _ = ways[name]
        rate = len(some) / statistics.median(taken)
        base = base or rate
        ms = 1e6 * statistics.median(taken) / sum(map(len, some))
        print(f"{name:32s} {rate:8.0f} captions/s  {rate / base:5.1f} x  {ms:5.2f} ms a kilobyte, "
              f"{MANY:,} in {MANY / rate / 3600:.1f} core-hours")  # fmt: skip
    print(f"captions without an ambiguous word: {len(sure) / len(captions):.3f}")
    mapper = LabelMapper(labels, Lexicon.shared())
    mapped = [mapper.map(parsed) for parsed in CaptionParser.open().parse(captions)]
    closed = list(CaptionParser.closed(labels).parse(captions))
    print(f"closed mode agrees with open mode and mapping: {agreement(closed, mapped):.4f}")


if __name__ == "__main__":
    main()
