#!/usr/bin/env python3
"""Planted errors: how many wrong tags cleaning finds, how many lost tags generation restores.

    planted.py damage parsed.jsonl --labels labels.jsonl --kind hard --share 0.1 --out damaged/
    planted.py count WORK-0 WORK-1                  the cleaning rules, alone and together
    planted.py cleaned cleaned-0 cleaned-1          what a run of `ramctl clean` removed
    planted.py detect fold-0.jsonl --model M --cache C --out WORK-0     regions, as `clean` does
    planted.py scores fold-0.jsonl --model M --cache C --out S-0.npy    of all labels
    planted.py returned damaged/ S-0.npy S-1.npy    tags that come back (also from tag's JSONL)
    planted.py sheets damaged/ S-0.npy S-1.npy      100 of them to look at
    planted.py cleanlab damaged/ S-0.npy S-1.npy    what cleanlab finds with the same scores
    planted.py probe damaged/ --cache C             a linear probe on frozen features: the floor
    planted.py table WORK...                        all of it as a Markdown table

Records are split into two folds by photo. Each fold is scored by the model of the other; the share
to remove is chosen on one fold and measured on the other. Tags that two or more captions name are
right; those named once count neither way.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import kept
import numpy as np
from planted_damage import write_damaged

from ramctl.labels import LabelSystem

Rows = list[dict[str, Any]]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    damage = commands.add_parser("damage")
    damage.add_argument("records", type=Path)
    damage.add_argument("--labels", type=Path, required=True)
    damage.add_argument("--kind", choices=["random", "hard"], required=True)
    damage.add_argument("--share", type=float, required=True, help="planted, of a record's tags")
    damage.add_argument("--drop", type=float, default=0.3, help="of all tags")
    damage.add_argument("--min-count", type=int, default=5)
    damage.add_argument("--seed", type=int, default=0)
    damage.add_argument("--out", type=Path, required=True)
    for name in ("count", "cleaned"):
        command = commands.add_parser(name)
        command.add_argument("paths", type=Path, nargs=2)
        command.add_argument("--min-regions", type=int, help="of `count` [default: clean's]")
    for name in ("returned", "sheets", "cleanlab"):
        command = commands.add_parser(name)
        command.add_argument("damaged", type=Path)
        command.add_argument("scores", type=Path, nargs=2)
        command.add_argument("--labels", type=Path, required=True)
        command.add_argument("--root", type=Path)
        command.add_argument("--out", type=Path)
    for name in ("detect", "scores"):
        command = commands.add_parser(name)
        command.add_argument("records", type=Path)
        for need in ("model", "cache", "root", "out"):
            command.add_argument(f"--{need}", type=Path, required=True)
    probe = commands.add_parser("probe")
    probe.add_argument("damaged", type=Path)
    probe.add_argument("--cache", type=Path, required=True)
    probe.add_argument("--root", type=Path, required=True)
    columns = commands.add_parser("table")
    columns.add_argument("works", type=Path, nargs="+")
    columns.add_argument("--into", type=Path, help="put it between the marks of this file")
    options = parser.parse_args()
    if options.command == "table":
        write_table(table(options.works), options.into)
    elif options.command == "detect":
        kept.detect(options.records, options.model, options.cache, options.root, options.out)
    elif options.command == "scores":
        rows = read_jsonl(options.records)
        np.save(options.out, kept.scores(rows, options.model, options.cache, options.root))
    else:
        print(json.dumps(run(options), indent=1))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The result of a command; heavy imports only where they are needed."""
    match options.command:
        case "damage":
            return write_damaged(options)
        case "count" | "cleaned":
            from planted_rules import count_cleaned, count_removed

            if options.command == "cleaned":
                return count_cleaned(options.paths)
            return count_removed(options.paths, options.min_regions)
        case "probe":
            from planted_rivals import probe_floor

            return probe_floor(folds(options.damaged), options.root, options.cache)
    damaged, scores = folds(options.damaged), [read_scores(path) for path in options.scores]
    names = [label.tag for label in LabelSystem.read(options.labels)]
    if options.command == "cleanlab":
        from planted_rivals import cleanlab_scores

        return cleanlab_scores(damaged, scores, names)
    from planted_returned import count_returned, write_sheets

    if options.command == "returned":
        return count_returned(damaged, scores, names)
    return write_sheets(damaged, scores, names, options.root, options.out)


def read_jsonl(path: Path) -> Rows:
    """The records of a file."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def read_scores(path: Path) -> np.ndarray:
    """Scores (photos, labels) that `scores`, or `ramctl tag --dense`, wrote."""
    if path.suffix == ".npy":
        scores: np.ndarray = np.load(path)
        return scores
    return np.array([row["dense"] for row in read_jsonl(path)], np.float32)


def folds(damaged: Path) -> list[Rows]:
    """The two folds of damaged records."""
    return [read_jsonl(damaged / f"fold-{i}.jsonl") for i in (0, 1)]


# (row's title, result file, the path to its {"planted", "right"})
ROWS = [
    ("outlier alone, pool", "removed-pool", ["outlier"]),
    ("not-predicted alone, pool", "removed-pool", ["not-predicted"]),
    ("**both, pool**", "removed-pool", ["both"]),
    ("**both, pool, `--min-regions 3`**", "removed-least-3", ["both"]),
    ("both, pool, `--min-regions 20`", "removed-least-20", ["both"]),
    ("both, pool, in-sample", "removed-in-sample", ["both"]),
    ("outlier alone, crop", "removed-crop", ["outlier"]),
    ("not-predicted alone, crop", "removed-crop", ["not-predicted"]),
    ("both, crop", "removed-crop", ["both"]),
    ("outlier alone, pool, Lite2 trained", "removed-wide", ["outlier"]),
    ("not-predicted alone, pool, Lite2 trained", "removed-wide", ["not-predicted"]),
    ("**both, pool, Lite2 trained**", "removed-wide", ["both"]),
    ("`clean --outliers 0.1 --threshold 0.05`", "cleaned", []),
    ("linear probe (floor)", "probe", ["not-predicted"]),
]
RETURNED = {
    "returned-wide": "Lite2 trained, plain cross-entropy",
    "returned-plain": "plain cross-entropy",
    "returned": "asymmetric loss",
    "probe": "linear probe (floor)",
}
CLEANLABS = {"cleanlab": "", "cleanlab-wide": ", Lite2 trained"}
AUCS = [
    ("AUC of the outlier distance, pool", "removed-pool", "distance"),
    ("AUC of the outlier distance, crop", "removed-crop", "distance"),
    ("AUC of the outlier distance, pool, Lite2 trained", "removed-wide", "distance"),
    ("AUC of the score, pool", "removed-pool", "score"),
    ("AUC of the score, pool, Lite2 trained", "removed-wide", "score"),
]


def table(works: list[Path]) -> str:
    """Planted tags removed, right tags lost, and what comes back; one column per work folder."""
    results = [
        {p.stem: json.loads(p.read_text("utf-8")) for p in work.glob("*.json") if p.stat().st_size}
        for work in works
    ]
    lines = [
        "| planted tags removed (right tags lost) | " + " | ".join(w.name for w in works) + " |",
        "|---|" + "---|" * len(works),
    ]
    rows = [(title, [_removed(r, name, keys) for r in results]) for title, name, keys in ROWS]
    for name, of in CLEANLABS.items():
        title = f"cleanlab, the best of its scores{of}"
        rows.append((title, [_best_of_cleanlab(r, name) for r in results]))
    for title, name, key in AUCS:
        rows.append((title, [f"{r[name]['auc'][key]:.3f}" if name in r else "" for r in results]))
    for kinds, said in (("all", ""), ("cleaned kinds", ", objects and scenes")):
        for name, of in RETURNED.items():
            title = f"returned tags{said}, {of}: precision at recall 0.1 / 0.2 / 0.3"
            rows.append((title, [_returned(r, name, kinds) for r in results]))
    lines += [_line(title, cells) for title, cells in rows if any(cells)]
    return "\n".join(lines)


def write_table(text: str, into: Path | None, name: str = "planted") -> None:
    """Print a table, or put it between the marks of its name in a document."""
    if into is None:
        print(text)
        return
    marks = f"<!-- {name} -->", f"<!-- end {name} -->"
    before, rest = into.read_text("utf-8").split(marks[0])
    _, after = rest.split(marks[1])
    into.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{after}", encoding="utf-8")


def _line(title: str, cells: list[str]) -> str:
    return f"| {title} | " + " | ".join(cells) + " |"


def _removed(result: dict[str, Any], name: str, keys: list[str]) -> str:
    if name not in result:
        return ""
    found = result[name]
    for key in keys:
        found = found[key]
    return f"{found['planted']:.1%} ({found['right']:.1%})"


def _returned(result: dict[str, Any], name: str, kinds: str) -> str:
    found = result.get("probe", {}).get("returned") if name == "probe" else result.get(name)
    return (
        " / ".join(f"{p:.2f}" for p in found[kinds]["precision_at_recall"].values())
        if found
        else ""
    )


def _best_of_cleanlab(result: dict[str, Any], name: str) -> str:
    if name not in result:
        return ""
    scorer, best = max(result[name].items(), key=lambda item: item[1]["planted"])
    return f"{best['planted']:.1%} ({best['right']:.1%}; {scorer})"


if __name__ == "__main__":
    main()
