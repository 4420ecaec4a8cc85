"""The table in which a person reviews a label system: tab-separated, one candidate a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.parsing.build import DECISIONS, Candidate
from ramctl.records.files import write_atomic
from ramctl.records.record import KINDS

COLUMNS = ("tag", "decision", "of", "kind", "count", "reason")


def read_review(path: Path) -> dict[str, Candidate]:
    """What each line of the table decides, by tag; empty if there is no such file.

    Raises RunProblem naming file and line where a line is no decision.
    """
    if not path.exists():
        return {}
    decided: dict[str, Candidate] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE):
            number = len(decided) + 2
            tag, decision = (row.get("tag") or "").strip(), (row.get("decision") or "").strip()
            kind, of = (row.get("kind") or "").strip(), (row.get("of") or "").strip()
            if not tag or decision not in DECISIONS or kind not in KINDS:
                raise RunProblem(
                    f"{path}:{number}: needs a tag, a decision ({', '.join(DECISIONS)}) "
                    f"and a kind ({', '.join(KINDS)})"
                )
            if decision == "synonym" and not of:
                raise RunProblem(f"{path}:{number}: a synonym of nothing: column of is empty")
            count = (row.get("count") or "0").strip()
            decided[tag] = Candidate(
                tag, int(count) if count.isdigit() else 0, kind, decision, of, row["reason"] or ""
            )
    return decided


def write_review(path: Path, candidates: Iterable[Candidate]) -> None:
    """Write the table, whole or not at all."""
    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
    rows.writerow(COLUMNS)
    for c in candidates:
        rows.writerow([c.tag, c.decision, c.of, c.kind, c.count, c.reason])
    write_atomic(path, text.getvalue().encode())
