#!/usr/bin/env python3
"""What `ramctl tag --labels` takes for each word of a long list: core time and memory.

    scripts/bench/words.py --words 1000000

Tags a photo with lists of a hundredth, a tenth and all of so many words, none of which the embedded
model knows, each in a process of its own. What the shortest list takes is subtracted: the rest is
for the words. Exits with 1 where a word of the longest list takes half as much again of either as
one of the list before.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()

from measuring import run_ramctl

BUNDLE = ROOT / "ramctl" / "bundles" / "mini"
PHOTO = ROOT / "tests" / "data" / "photos" / "horses.jpg"
MOST = 1.5  # of what a word of the list before takes


def write_words(path: Path, number: int) -> None:
    """Pairs of the model's labels, no two alike."""
    lines = (BUNDLE / "labels.jsonl").read_text("utf-8").splitlines()
    tags = [json.loads(line)["tag"] for line in lines]
    pairs = itertools.islice(itertools.permutations(tags, 2), number)
    path.write_text("".join(f"{one} beside {other}\n" for one, other in pairs), "utf-8")


def measure(words: Path) -> tuple[float, float]:
    """Core seconds and MB of tagging a photo."""
    asked = ["--labels", words, "--threshold", "0", "--top", "1"]
    taken = run_ramctl("tag", "-q", *asked, "-j", "1", PHOTO)
    return taken.core_s, taken.peak_bytes / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--words", type=int, default=100_000)
    number = parser.parse_args().words
    sizes, taken, each = [number // 100, number // 10, number], [], []
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            path = Path(name) / f"{size}.txt"
            write_words(path, size)
            taken.append(measure(path))
            print(f"{size:>9,} words: {taken[-1][0]:.1f} s of a core, {taken[-1][1]:.0f} MB")
    for size, own in zip(sizes[1:], taken[1:], strict=True):
        more = size - sizes[0]
        each.append([(value - least) / more for value, least in zip(own, taken[0], strict=True)])
    time, memory = (after / before for before, after in zip(*each, strict=True))
    print(
        f"a word takes {each[1][0] * 1e6:.0f} µs and {each[1][1] * 1e6:.0f} bytes: with ten times"
    )
    print(f"as many, {time:.2f} times the time and {memory:.2f} times the memory (at most {MOST})")
    return int(max(time, memory) > MOST)


if __name__ == "__main__":
    sys.exit(main())
