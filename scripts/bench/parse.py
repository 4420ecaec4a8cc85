#!/usr/bin/env python3
"""Time the parser against spaCy's default pipeline in one run.

    scripts/bench/parse.py CAPTIONS.jsonl.gz... [--labels labels.jsonl] [-n 4000] [--rounds 3]

Prints captions a second of CPU time on one core (median of rounds, the ways taken in turn), the
ratios to the same spaCy model with its default pipeline, and milliseconds a kilobyte of text.
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
from measuring import core_seconds

from ramctl.parsing.parsed_caption import clean
from ramctl.parsing.parser import MODEL_PACKAGES, CaptionParser, PosTagger
from ramctl.records.inputs import read_inputs
from ramctl.records.labels import Labels
from ramctl.records.record import Record, captions_of

Way = tuple[list[str], Callable[[list[str]], object]]  # captions, and what is done with them
MANY = 14_000_000  # captions of the paper's larger set


def sampled_captions(files: Sequence[str], n: int) -> list[str]:
    """n distinct captions, drawn at random."""
    captions = dict.fromkeys(
        caption
        for record in read_inputs(files, None, "bench")
        if isinstance(record, Record)
        for caption in captions_of(record.fields)
    )
    return random.Random(0).sample(sorted(captions), min(n, len(captions)))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("files", nargs="+")
    arguments.add_argument("--labels", type=Path, required=True)
    arguments.add_argument("-n", type=int, default=4000)
    arguments.add_argument("--rounds", type=int, default=3)
    args = arguments.parse_args()

    captions = sampled_captions(args.files, args.n)
    labels = Labels.read(args.labels)
    model = next(name for name in MODEL_PACKAGES if spacy.util.is_package(name))
    nlp = spacy.load(model)
    ways: dict[str, Way] = {
        "spaCy, default pipeline": (captions, lambda some: list(nlp.pipe(some))),
        "its tagger alone, as we run it": (
            captions,
            lambda some: list(PosTagger.shared().tag([*map(clean, some)])),
        ),
        "open mode": (captions, lambda some: list(CaptionParser.open().parse(some))),
        "closed mode": (captions, lambda some: list(CaptionParser.closed(labels).parse(some))),
    }
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


if __name__ == "__main__":
    main()
