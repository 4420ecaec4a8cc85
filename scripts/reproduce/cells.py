"""Tables of cells: what the paper says beside what was measured, as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SETTINGS = {
    "s": "supervised: trained on labels of that set",
    "t": "has seen training photos of that set, not its labels",
    "T": "and scores of taggers that were trained on such labels",
    "n": "names of other classes, learnt on other photos",
    "+": "classes that the model does not know are left out",
    "x": "cannot be evaluated",
    "*": "poor with many categories, or too slow",
    "?": "a digit that our copy of the paper lacks",
}
MEASURED, NEEDS, PRIVATE, NONE = "measured", "needs", "private", "not evaluated"


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of a table: what we measured, what the paper has, and what is missing."""

    row: str
    column: str
    setting: str  # in words
    paper: str
    status: str
    ours: str = ""
    needs: str = ""

    def shown(self, needed: list[str]) -> str:
        """The cell as a person reads it; what it needs is a note, numbered."""
        paper = f"({self.paper})" if self.paper else ""
        if self.status == NEEDS:
            if self.needs not in needed:
                needed.append(self.needs)
            text = f"needs [{needed.index(self.needs) + 1}]"
        else:
            text = self.ours or ("" if self.status == NONE and paper else self.status)
        return f"{text} {paper}".strip()


def setting_in_words(marks: str) -> str:
    """Explain the marks behind a number; zero-shot without s, t and n."""
    found = [mark for mark in SETTINGS if mark in marks]
    zero_shot = [] if set(found) & {"s", "t", "n"} else ["zero-shot"]
    return "; ".join(zero_shot + [SETTINGS[mark] for mark in found if mark not in "x*?"])


def markdown(
    title: str,
    columns: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Sequence[Cell]]],
    *,
    lead: Sequence[str] = ("method",),
) -> str:
    """A table whose rows begin with words, and below it what its cells need."""
    head = [*lead, *columns]
    needed: list[str] = []
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for words, cells in rows:
        shown = (cell.shown(needed) for cell in cells)
        lines.append(f"| {' | '.join([*words, *shown])} |")
    if needed:
        lines += ["", "Needs: " + "; ".join(f"[{n}] {what}" for n, what in enumerate(needed, 1))]
    return "\n".join(lines) + "\n"


def legend(cells: Sequence[Cell]) -> str:
    """Explain the marks in cells."""
    shown = "".join(f"{cell.paper} {cell.ours}" for cell in cells)
    used = [f"{mark}: {words}" for mark, words in SETTINGS.items() if mark in shown]
    return f"In brackets: the paper's number. {'; '.join(used)}; else zero-shot.\n"


def write(path: Path, text: str, cells: Sequence[Cell], **more: object) -> None:
    """Write PATH.md, PATH.csv and PATH.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text, "utf-8")
    rows = [asdict(cell) for cell in cells]
    out = io.StringIO()
    table = csv.DictWriter(out, list(Cell.__dataclass_fields__), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    path.with_suffix(".csv").write_text(out.getvalue(), "utf-8")
    content = json.dumps({"cells": rows, **more}, ensure_ascii=False, indent=1)
    path.with_suffix(".json").write_text(content + "\n", "utf-8")


def endpoint(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """The one figure that was fixed beforehand, in words; by what is compared."""
    lines = [
        "The endpoint, fixed beforehand: mean over the sets of the paired difference in mAP.",
        "",
    ]
    for compared, own in differences.items():
        low, high = own["ci"] or (-1.0, 1.0)
        told = "" if low > 0 or high < 0 else ", not significant"
        lines.append(
            f"- {compared}: {100 * own['difference']:+.1f} points "
            f"(95 % {100 * low:+.1f} to {100 * high:+.1f}{told})"
        )
    return "\n".join([*lines, "", ""])
