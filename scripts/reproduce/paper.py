#!/usr/bin/env python3
"""The authors' models on the paper's sets, beside the paper's figures.

    paper.py --shared S --data D --weights W --work B [SYSTEM ...]

Each checkpoint of RAM and Tag2Text in W (or those named: RAM-14M ...) is converted, tags each set
whose files and photos are in D, and is compared with the paper: mAP with its interval over photos,
precision and recall at the authors' threshold. Within: the mAP differs from the paper's by no more
than the set's tolerance (paper.toml). Writes B/paper.md, .csv and .json. The exit status is 1 where
a figure is outside its tolerance or photos are missing, 2 where nothing could be compared.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from cells import MEASURED, NEEDS, Cell, setting_in_words, write
from tables import PAPER, Missing, Tables

from ramctl.errors import RunProblem

COLUMNS = (
    "system", "set", "photos", "mAP here (95 %)", "paper", "difference", "within",
    "precision/recall here", "paper",
)  # fmt: skip


def printed(paper: str) -> tuple[float, float]:
    """The lowest and the highest figure that the paper's digits stand for; `?` is any digit."""
    digits = paper.split()[0].rstrip("+")
    lowest, highest = float(digits.replace("?", "0")), float(digits.replace("?", "9"))
    return lowest - 0.05, highest + 0.05


def distance(value: float, paper: str) -> float:
    """The difference to what the paper prints, 0 where it would print the same."""
    low, high = printed(paper)
    return value - min(max(value, low), high)


def compare(tables: Tables, system: str, benchmark: dict[str, Any], paper: str) -> list[str]:
    """A row of the table; Missing what it needs."""
    name = benchmark["name"]
    found, n_photos = tables.figures(system, name), len(tables.truth(name).statements)
    value, (low, high) = 100 * found["mAP"], found["ci"] or (math.nan, math.nan)
    away = distance(value, paper)
    is_within = abs(away) <= benchmark["tolerance"]
    verdict = f"{'yes' if is_within else '**no**'} (±{benchmark['tolerance']})"
    if found["photos"] < n_photos:
        verdict = "**photos are missing**"
    place = list(tables.benchmarks).index(name)
    pr = tables.systems[system]["pr"][place]
    return [
        system, benchmark["title"], f"{found['photos']:,} of {n_photos:,}",
        f"{value:.1f} ({100 * low:.1f} to {100 * high:.1f})", paper, f"{away:+.1f}", verdict,
        f"{100 * found['CP']:.1f}/{100 * found['CR']:.1f} ({found['note']})", pr,
    ]  # fmt: skip


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    known = [own["name"] for own in PAPER["systems"] if "convert" in own]
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(known))
    for name in ("shared", "data", "weights", "predictions", "work"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    if wrong := sorted({*options.systems} - {*known}):
        parser.error(f"unknown system {wrong[0]}; known: {', '.join(known)}")
    options.sets = []
    tables, rows, cells = Tables(options), [], []
    needs: dict[str, list[str]] = {}
    for system in options.systems or known:
        values = zip(PAPER["benchmarks"], tables.systems[system]["map"], strict=True)
        for benchmark, paper in values:
            if benchmark["name"] == "oppo-common" or paper == "x":
                continue
            about = (system, benchmark["title"], setting_in_words(paper), paper)
            print(f"{system} on {benchmark['title']} ...", file=sys.stderr, flush=True)
            try:
                rows.append(compare(tables, system, benchmark, paper))
                cells.append(Cell(*about, MEASURED, rows[-1][3]))
            except (Missing, RunProblem) as missing:
                needs.setdefault(str(missing), []).append(f"{system} on {benchmark['title']}")
                cells.append(Cell(*about, NEEDS, needs=str(missing)))
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines) if rows else ""
    text += "".join(f"\nneeds {what}: {', '.join(where)}" for what, where in needs.items())
    write(options.work / "paper", f"{text}\n", cells)
    print(text)
    if not rows:
        return 2
    return int(any("**" in row[6] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
