#!/usr/bin/env python3
"""Count the readings of words in captions, for the closed mode's table of frequent readings.

    scripts/mini/leave_out.py --not EVALUATION.jsonl... -- CAPTIONS.jsonl.gz... > corpus.jsonl
    scripts/build_readings.py corpus.jsonl [--hold-out 0.05]

Writes ramctl/parsing/english/data/readings.gz in the format that
ramctl/parsing/english/readings.py describes. The same captions give the same bytes. The shipped
table is counted on the caption corpora without the photos that the embedded model is evaluated on.
Captions of the held-out share of images (by a hash of the image) are left out;
`scripts/bench/parse.py` measures on those how well both ways of reading agree.
"""

import argparse
import gzip
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from venv_python import ROOT, use_venv

use_venv()

from ramctl.parsing.english.lexicon import Lexicon
from ramctl.parsing.english.pos_tagger import PosTagger
from ramctl.parsing.english.readings import CERTAIN, END, LIKELY, START
from ramctl.parsing.english.rules.apply import apply_rules
from ramctl.parsing.english.rules.sentence import Findings, clean
from ramctl.records.inputs import read_inputs
from ramctl.records.record import Record, captions_of

OUT = ROOT / "ramctl" / "parsing" / "english" / "data" / "readings.gz"
MIN_COUNT = 2
MIN_CONTEXT = 3
IDIOM_WORDS = 5


def is_held_out(image: object, share: float) -> bool:
    digest = hashlib.blake2b(str(image).encode(), digest_size=4).digest()
    return int.from_bytes(digest) < share * 2**32


def captions(files: Sequence[str], share: float) -> Iterator[str]:
    seen: set[str] = set()
    for item in read_inputs(files, None, "build_readings"):
        if isinstance(item, Record) and not is_held_out(item.fields.get("image"), share):
            for caption in captions_of(item.fields):
                if caption not in seen:
                    seen.add(caption)
                    yield clean(caption)


def forms_and_readings(findings: Findings) -> list[tuple[str, str]]:
    """The caption's forms (idioms and compounds joined) with the tags of each."""
    sentence = findings.sentence
    at: dict[int, list[str]] = defaultdict(list)
    for mention in findings.mentions:
        at[mention.place].append(f"{mention.tag}/{mention.kind}")
    rows, i, n = [], 0, len(sentence)
    while i < n:
        end = i + 1
        if i in sentence.compounds:
            end = sentence.compounds[i][0]
        elif sentence.excluded[i] == "idiom":
            while end < n and sentence.excluded[end] == "idiom" and end - i < IDIOM_WORDS:
                end += 1
        readings = dict.fromkeys(r for k in range(i, end) for r in at.get(k, ()))
        rows.append((" ".join(sentence.words[i:end]), "|".join(readings)))
        i = end
    return rows


def best(counter: Counter[str]) -> tuple[str, float, int]:
    reading, count = min(counter.items(), key=lambda item: (-item[1], item[0]))
    return reading, count / (counter.total() + 0.4), counter.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+")
    parser.add_argument("--hold-out", type=float, default=0.05)
    args = parser.parse_args()

    alone: dict[str, Counter[str]] = defaultdict(Counter)
    beside: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    lexicon = Lexicon.shared()
    for shown, tags in PosTagger.shared().tag(captions(args.files, args.hold_out)):
        rows = forms_and_readings(apply_rules(shown, tags, lexicon))
        for i, (form, reading) in enumerate(rows):
            alone[form][reading] += 1
            beside[form]["<" + (rows[i - 1][0] if i else START)][reading] += 1
            beside[form][">" + (rows[i + 1][0] if i + 1 < len(rows) else END)][reading] += 1
    lines = []
    for form in sorted(alone):
        reading, share, count = best(alone[form])
        if count < MIN_COUNT:
            continue
        contexts = []
        if share < CERTAIN:
            for neighbour in sorted(beside[form]):
                other, other_share, n = best(beside[form][neighbour])
                if n >= MIN_CONTEXT and other_share >= LIKELY:
                    contexts.append(f"{neighbour}={other}")
        if share >= LIKELY or contexts:
            lines.append("\t".join([form, reading, str(int(share * 1000)), *contexts]))
    text = "\n".join(lines) + "\n"
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{len(lines)} forms, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
