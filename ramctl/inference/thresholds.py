"""Thresholds that a user gives: a number, or a file with one for each of some labels. L labels."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import read_lines
from ramctl.records.labels import NEVER, Labels
from ramctl.records.record import JsonObject

#: One threshold, one for each of some tags, or a file of them.
Threshold = float | str | os.PathLike[str] | Mapping[str, float]


def user_thresholds(
    threshold: Threshold, labels: Labels, usual: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The thresholds (L,) of `--threshold`: one for all, or some besides the usual ones.

    One for all leaves out the labels that are never given.
    """
    if isinstance(threshold, Mapping):
        thresholds = usual.copy()
        for tag, value in threshold.items():
            if not (ids := labels.ids(tag)):
                raise UsageProblem(f"threshold: no label is called {tag!r}")
            thresholds[list(ids)] = value
        threshold = "threshold"
    else:
        listed = np.array(label_thresholds(str(threshold), labels, np.nan))
        thresholds = np.where(np.isnan(listed), usual, listed)
        if read_threshold(str(threshold)) is not None:
            thresholds = np.where(usual < NEVER, thresholds, NEVER)
    for tag, value in zip(labels.tags, thresholds.tolist(), strict=True):
        if not 0 <= value <= 1:
            raise RunProblem(f"{threshold}: {value:g}, for {tag!r}, is not between 0 and 1")
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
    rows = _threshold_rows(path, n_labels=len(labels))
    if rows and rows[0][0] is None:
        return [value for _, value in rows]
    thresholds = [default] * len(labels)
    for tag, value in rows:
        for index in labels.ids(tag or ""):
            thresholds[index] = value
    return thresholds


def label_thresholds(text: str, labels: Labels, default: float) -> list[float]:
    """A threshold for each label in id order, by `--threshold NUMBER|FILE`."""
    number = read_threshold(text)
    if number is None:
        return read_thresholds(Path(text), labels, default)
    return [number] * len(labels)


def tag_thresholds(text: str) -> Callable[[str], float]:
    """The threshold of any tag by `--threshold NUMBER|FILE`; -inf for one that FILE lacks."""
    number = read_threshold(text)
    if number is not None:
        return lambda tag: number
    by_tag = dict(_threshold_rows(Path(text)))
    if None in by_tag:
        raise RunProblem(f'{text}: expected lines of {{"tag": ..., "threshold": number}}')
    return lambda tag: by_tag.get(tag, -math.inf)


def _threshold_rows(path: Path, n_labels: int | None = None) -> list[tuple[str | None, float]]:
    """The tag and the threshold of each line; None as tag if the lines are bare numbers.

    RunProblem where there is not a number for each of `n_labels`.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    is_bare = bool(lines) and not lines[0].lstrip().startswith("{")
    if is_bare and n_labels not in (None, len(lines)):
        raise RunProblem(f"{path}: {len(lines)} thresholds for {n_labels} labels")
    expected = "a finite number" if is_bare else '{"tag": ..., "threshold": number}'
    rows: list[tuple[str | None, float]] = []
    for number, line in enumerate(lines, 1):
        try:
            row: JsonObject = {"tag": None, "threshold": line} if is_bare else orjson.loads(line)
            tag, value = row["tag"], float(row["threshold"])
            if not math.isfinite(value) or not (is_bare or isinstance(tag, str)):
                raise ValueError(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunProblem(f"{path}:{number}: expected {expected}") from error
        rows.append((tag, value))
    return rows
