"""The thresholds above which tags are given, chosen by judged photos, or by the user.

A user gives a precision, a number, or a file with one for each of some labels. L labels.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import read_lines
from ramctl.records.labels import DEFAULT_THRESHOLD, NEVER, Labels
from ramctl.records.record import JsonObject

#: One threshold, one for each of some tags, or a file of them.
Threshold = float | str | os.PathLike[str] | Mapping[str, float]


class Precision(NamedTuple):
    """The effect of a threshold on photos that did not choose it."""

    threshold: float
    precision: float
    tags: float  # a photo


def choose_threshold(table: list[Precision], precision: float, right: NDArray[np.bool_]) -> float:
    """The lowest threshold of a precision, else and for 0 that of the best F1; 0.5 without any."""
    if not table:
        return DEFAULT_THRESHOLD
    if reached := [row.threshold for row in table if precision and row.precision >= precision]:
        return min(reached)
    n_right = right.sum() / len(right)
    return max(table, key=lambda row: row.precision * row.tags / (row.tags + n_right)).threshold


def usual_thresholds(
    bundle: Bundle, labels: Labels, precision: float | None
) -> NDArray[np.float64]:
    """The thresholds (L,): a label's own, else the bundle's usual one, or that of a precision.

    RunProblem where no threshold of the bundle's table reaches the precision.
    """
    if precision is None:
        return labels.thresholds(bundle.threshold)
    table = [Precision(*row) for row in bundle.meta.get("precisions", ())]
    if reached := [row.threshold for row in table if row.precision >= precision]:
        return labels.thresholds(min(reached))
    best = max((f"at most {row.precision:.3f}" for row in table), default="it is not calibrated")
    raise RunProblem(f"{bundle.path}: no threshold reaches precision {precision:g}: {best}")


def user_thresholds(
    threshold: Threshold, labels: Labels, usual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The thresholds (L,) of `--threshold`: one for all, or some besides the usual ones.

    One for all leaves out the labels that are never given.
    """
    if not isinstance(threshold, Mapping):
        if (number := read_threshold(str(threshold))) is not None:
            return np.where(usual < NEVER, number, NEVER)
        listed = np.array(read_thresholds(Path(str(threshold)), labels, np.nan), np.float64)
        return np.where(np.isnan(listed), usual, listed)
    thresholds = usual.copy()
    for tag, value in threshold.items():
        if not (ids := labels.ids(tag)):
            raise UsageProblem(f"threshold: no label is called {tag!r}")
        thresholds[list(ids)] = value
    return thresholds


def read_threshold(text: str) -> float | None:
    """The number of `--threshold NUMBER`, None for a file's name; UsageProblem outside [0, 1]."""
    try:
        value = float(text)
    except ValueError:
        return None
    if not 0 <= value <= 1:
        raise UsageProblem(f"--threshold {text}: not between 0 and 1")
    return value


def read_thresholds(path: Path, labels: Labels, default: float) -> list[float]:
    """A threshold for each label in id order, from JSONL `{"tag", "threshold"}` or bare numbers.

    Labels that a JSONL file does not name take `default`. Raises RunProblem naming file and line.
    """
    rows = _rows(path)
    if any(tag is None for tag, _ in rows):
        if len(rows) != len(labels):
            raise RunProblem(f"{path}: {len(rows)} thresholds for {len(labels)} labels")
        return [value for _, value in rows]
    thresholds = [default] * len(labels)
    for tag, value in rows:
        for index in labels.ids(tag or ""):
            thresholds[index] = value
    return thresholds


def _rows(path: Path) -> list[tuple[str | None, float]]:
    """The tag and the threshold of each line; None as tag of a bare number."""
    rows: list[tuple[str | None, float]] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            bare: JsonObject = {"tag": None, "threshold": line}
            row = orjson.loads(line) if "{" in line else bare
            value = float(row["threshold"])
            if not 0 <= value <= 1:
                raise ValueError(line)
            rows.append((row["tag"], value))
        except (ValueError, KeyError, TypeError) as error:
            expected = '{"tag": ..., "threshold": number from 0 to 1}'
            raise RunProblem(f"{path}:{number}: expected {expected}") from error
    return rows


def tag_thresholds(text: str) -> Callable[[str], float]:
    """The threshold of any tag by `--threshold NUMBER|FILE`; -inf for one that FILE lacks."""
    number = read_threshold(text)
    if number is not None:
        return lambda tag: number
    by_tag = dict(_rows(Path(text)))
    return lambda tag: by_tag.get(tag, -math.inf)
