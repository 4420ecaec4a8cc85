#!/usr/bin/env python3
"""That parsing a million distinct captions takes no more memory than parsing a hundred thousand.

    scripts/bench/parse_memory.py ../shared/data/text/*.jsonl.gz
    scripts/bench/parse_memory.py --captions 200000 --labels labels.jsonl captions.jsonl

The corpus is read again and again, each caption with another number behind it, so that no cache
that grows with what it has seen stays unnoticed. Prints the resident memory of the process.
"""

import argparse
import itertools
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ramctl.labels import LabelSystem  # noqa: E402
from ramctl.parsing import CaptionParser  # noqa: E402
from ramctl.records.inputs import read_inputs  # noqa: E402
from ramctl.records.record import Record, captions_of  # noqa: E402

MOST_MIB = 1024
MOST_GROWTH_MIB = 64
REPORTS = 10


def distinct(captions: list[str], number: int) -> Iterator[str]:
    """So many captions, no two alike."""
    for index, caption in enumerate(itertools.islice(itertools.cycle(captions), number)):
        yield f"{caption} {index}"


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", help="captions as ramctl parse reads them")
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--labels", type=Path, help="closed mode by this label system")
    args = parser.parse_args()
    records = (r for r in read_inputs(args.inputs, None, "parse") if isinstance(r, Record))
    texts = (text for record in records for text in captions_of(record.fields))
    captions = list(itertools.islice(texts, 50_000))
    if args.labels is None:
        reader = CaptionParser.open()
    else:
        reader = CaptionParser.closed(LabelSystem.read(args.labels))
    sizes, started = list[float](), time.process_time()
    every = max(1, args.captions // REPORTS)
    for done, _ in enumerate(reader.parse(distinct(captions, args.captions)), 1):
        if done % every == 0:
            sizes.append(resident_mib())
            print(
                f"{done:>9,} captions {sizes[-1]:6.0f} MiB {time.process_time() - started:5.0f} s"
            )
    growth = sizes[-1] - sizes[0]
    print(f"growth after the first tenth: {growth:.0f} MiB (at most {MOST_GROWTH_MIB})")
    return int(growth > MOST_GROWTH_MIB or max(sizes) > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main())
