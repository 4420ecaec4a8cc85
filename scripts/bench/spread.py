#!/usr/bin/env python3
"""Runs a program several times and prints its lines once, each number with its spread.

    scripts/bench/spread.py --rounds 3 scripts/bench/tag.py --seconds 2

Of lines that differ in their numbers only: the median and, if they differ, the least and the most.
"""

import argparse
import re
import statistics
import subprocess
import sys
from collections import Counter, defaultdict

# Of figures such as 640x480, bf16 or beam:3 nothing is averaged: they are the same in all rounds.
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:,\d{3})*(?:\.\d+)?")


def numbered(lines: list[str]) -> list[tuple[str, tuple[str, int]]]:
    """Each line, and what it is in all rounds: its words, and the how many-th one of these."""
    met: Counter[str] = Counter()
    out = []
    for line in lines:
        words = NUMBER.sub("#", line)
        met[words] += 1
        out.append((line, (words, met[words])))
    return out


def lines_with_spread(rounds: list[list[str]]) -> list[str]:
    """The lines of the first round, with the numbers of all."""
    numbers: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for lines in rounds:
        for line, key in numbered(lines):
            numbers[key].append([float(text.replace(",", "")) for text in NUMBER.findall(line)])
    out = []
    for line, key in numbered(rounds[0]):
        columns = iter(zip(*numbers[key], strict=True))

        def spread(match: re.Match[str]) -> str:
            values = next(columns)  # noqa: B023 (used at once)
            if min(values) == max(values):
                return match[0]
            digits = len(match[0].partition(".")[2])
            median, least, most = statistics.median(values), min(values), max(values)
            return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"

        out.append(NUMBER.sub(spread, line))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("program", nargs=argparse.REMAINDER, help="with its arguments")
    given = parser.parse_args()
    rounds, code = [], 0
    for _ in range(given.rounds):
        done = subprocess.run(given.program, stdout=subprocess.PIPE, text=True, check=False)
        code = max(code, done.returncode)
        rounds.append(done.stdout.splitlines())
    print(*lines_with_spread(rounds), sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
