"""Thresholds: the bundle's, those of `--threshold` and `--precision`, and those of listed words.

`fitting.choose_thresholds` chooses those of a new bundle. L labels.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.calibration import NEVER, Calibration
from ramctl.inference.label_rows import Rows, Words, label_rows, read_words, rows_of_words
from ramctl.labels import Label, Labels
from ramctl.records.files import read_lines
from ramctl.records.record import JsonObject

#: One threshold, one for each of some tags, or a file of them.
Threshold = float | str | os.PathLike[str] | Mapping[str, float]


def thresholds_of(
    bundle: Bundle, precision: float | None = None, *, salient: bool = False
) -> list[float]:
    """A bundle's thresholds in id order; 1 for labels without evidence.

    With `precision`, those at which this fraction of the given tags is right; RunProblem where the
    bundle has no calibration, or no threshold reaches it. `salient`: likely main things need less.
    """
    if precision is not None:
        return Calibration.from_bundle(bundle).thresholds(precision, salient=salient).tolist()
    stored = [label.threshold if label.validated else NEVER for label in bundle.labels]
    return [bundle.threshold if threshold is None else threshold for threshold in stored]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels with the rows that a model takes of them, and their thresholds."""

    labels: Labels
    rows: Rows  # (L, W), or (L, M, E) where the photo weighs a label's descriptions
    thresholds: NDArray[np.float64]  # (L,)
    uses_salience: NDArray[np.bool_]  # (L,) whether the threshold is lower for a main thing
    calibration: Calibration | None = None  # of these labels, where the bundle has one
    fills_up: bool = False  # a photo with few tags gets less certain ones

    def with_threshold(self, threshold: Threshold | None) -> "LabelSet":
        """These labels with the thresholds of a user, if any."""
        if threshold is None:
            return self
        uses_salience = np.zeros(len(self.labels), bool)
        thresholds = _user_thresholds(threshold, self)
        return replace(self, thresholds=thresholds, uses_salience=uses_salience, fills_up=False)


def bundle_labels(bundle: Bundle, precision: float | None = None) -> LabelSet:
    """The bundle's labels with their thresholds."""
    thresholds = np.array(thresholds_of(bundle, precision, salient=True), np.float64)
    uses_salience = np.full(len(thresholds), bool(precision or bundle.preset.precision))
    calibration = Calibration.if_known(bundle)
    rows, fills_up = label_rows(bundle), precision is None
    return LabelSet(bundle.labels, rows, thresholds, uses_salience, calibration, fills_up)


def plain_labels(tags: Sequence[str], threshold: float) -> LabelSet:
    """The labels of a tagger that takes no rows, with one threshold."""
    labels = Labels.from_tags(tags)
    rows, uses_salience = np.zeros((len(labels), 0), np.float32), np.zeros(len(labels), bool)
    return LabelSet(labels, rows, np.full(len(labels), threshold), uses_salience)


def choose_labels(
    bundle: Bundle, words: Words | None, threshold: Threshold | None,
    precision: float | None = None, *, language: str = "",
) -> LabelSet:  # fmt: skip
    """The labels of `--labels` with the thresholds of `--threshold` or `--precision`.

    `words`, or the name of a word list, a `labels.jsonl`, a bundle or a JSON file of descriptions;
    `+FILE` adds to the bundle's labels. They are English, or in this language. Words that the
    bundle knows keep what it learnt of them; others are embedded by its text encoder. Words alone
    have the thresholds of a list where the bundle has a calibration; else new ones take
    `open_set_threshold`.
    """
    if precision is not None and threshold is not None:
        raise UsageProblem("--precision chooses the thresholds: leave out --threshold")
    chosen = bundled = bundle_labels(bundle, precision)
    if words is not None:
        keep_labels = isinstance(words, str) and words.startswith("+")
        listed = read_words(words.removeprefix("+") if isinstance(words, str) else words)
        find = partial(bundled.labels.by_name, language=language)
        chosen = _with_words(bundle, bundled, listed, find, keep_labels, precision is not None)
    return chosen.with_threshold(threshold)


def _with_words(
    bundle: Bundle, bundled: LabelSet, words: Labels,
    find: Callable[[str], tuple[int, ...]], keep_labels: bool, is_precise: bool,
) -> LabelSet:  # fmt: skip
    """The words, behind the bundle's labels or alone; `find` gives the ids that a word names."""
    labels = list(bundled.labels) if keep_labels else []
    thresholds = bundled.thresholds[: len(labels)].tolist()
    known_ids: list[int | None] = list(range(len(labels)))  # None for a new word
    for word in words:
        ids = () if word.descriptions else find(word.tag)
        if ids and keep_labels:
            continue
        # Without evidence, a label that is asked for by name is as good as a new word.
        has_evidence = bool(ids) and bundled.labels[ids[0]].validated
        usual = float(bundled.thresholds[ids[0]]) if has_evidence else bundle.open_set_threshold
        if ids and word == Label(word.tag):  # of a plain list
            known = bundled.labels[ids[0]]
            word = Label(word.tag, known.kind, names=known.names)
        labels.append(word)
        thresholds.append(usual if word.threshold is None else word.threshold)
        known_ids.append(ids[0] if ids else None)
    rows = rows_of_words(bundle, bundled.rows, labels, known_ids)
    trusted = [None if i is None or not bundled.labels[i].validated else i for i in known_ids]
    calibration = bundled.calibration and bundled.calibration.for_labels(trusted)
    uses_salience = np.array([i is not None and bool(bundled.uses_salience[i]) for i in known_ids])
    chosen = np.array(thresholds, np.float64)
    if calibration is not None and not (keep_labels or is_precise):
        has_threshold = np.array([word.threshold is not None for word in words])
        chosen = np.where(has_threshold, chosen, calibration.listed_thresholds())
        uses_salience[:] = False
    fills_up = bundled.fills_up and keep_labels
    return LabelSet(Labels(labels), rows, chosen, uses_salience, calibration, fills_up)


def _user_thresholds(threshold: Threshold, chosen: LabelSet) -> NDArray[np.float64]:
    """One number for all, or numbers for some labels."""
    if isinstance(threshold, Mapping):
        thresholds = chosen.thresholds.copy()
        for tag, value in threshold.items():
            if not (ids := chosen.labels.ids(tag)):
                raise UsageProblem(f"threshold: no label is called {tag!r}")
            thresholds[list(ids)] = value
        threshold = "threshold"
    else:
        listed = np.array(label_thresholds(str(threshold), chosen.labels, np.nan))
        thresholds = np.where(np.isnan(listed), chosen.thresholds, listed)
    for tag, value in zip(chosen.labels.tags, thresholds.tolist(), strict=True):
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
