"""The labels that photos are scored against: the bundle's own, the user's words, or both.

L labels, M descriptions of one label, E width of text embeddings, W width of a label's row.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.calibration import Calibration
from ramctl.checkpoints.bundle import CALIBRATION, TEXT_FOLDER, Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Label, LabelSystem, read_threshold, read_thresholds
from ramctl.records.files import read_text, unpacked_name
from ramctl.records.parallel import chunks
from ramctl.text.static_table import read_text_encoder, unit

Rows = NDArray[np.float32]
#: Labels to look for: their words, or a file or bundle that holds them.
Words = str | os.PathLike[str] | Iterable[str] | LabelSystem
#: One threshold, one for each of some tags, or a file of them.
Threshold = float | str | os.PathLike[str] | Mapping[str, float]
# Chosen on flickr8k-dev with a fifth of the labels left out of training (scripts/reproduce): mAP of
# those labels 0.15 without borrowing, 0.20 to 0.23 with sharpness 20 to 40.
SHARPNESS = 20.0
# New words whose texts are embedded, and whose loans are computed, at a time: what the rows of a
# million words need besides themselves.
EMBEDDED_AT_ONCE = 8192
BLOCK = 128
TEXTS = "labels.text"  # the bundle's tensor of its labels' embeddings
_ROW_PARTS = (TEXTS, "labels.own", "labels.head", "labels.bias")


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels, what the model needs to know about each, and above which probability it is given."""

    labels: LabelSystem
    rows: Rows  # (L, W), or (L, M, E) where the photo weighs a label's descriptions
    thresholds: NDArray[np.float64]  # (L,)
    bends: NDArray[np.bool_]  # (L,) whose threshold is lower for a main thing
    calibration: Calibration | None = None  # of these labels, where the bundle knows it


def own_labels(bundle: Bundle, dtype: str = "fp32", precision: float | None = None) -> LabelSet:
    """The bundle's label system with its thresholds for a number format."""
    thresholds = np.array(bundle.thresholds_of(dtype, precision, salient=True), np.float64)
    calibration = bundle.calibration if bundle.has(CALIBRATION) else None
    bends = np.full(len(thresholds), bool(precision or bundle.preset.precision))
    return LabelSet(bundle.labels, label_rows(bundle), thresholds, bends, calibration)


def label_rows(bundle: Bundle) -> Rows:
    """The rows of the bundle's labels, as `ramctl.model.label_queries` lays them out."""
    tensors = bundle.tensors([*_ROW_PARTS, "labels.counts"])
    counts = tensors.pop("labels.counts")
    if len(tensors[TEXTS]) != len(counts):
        text = tensors[TEXTS].astype(np.float32, copy=False)
        if len(text) == len(counts) * max(counts):
            return text.reshape(len(counts), max(counts), -1)
        return _padded(np.split(text, np.cumsum(counts)[:-1]), max(counts), text.shape[1])
    return np.concatenate([tensors[name].astype(np.float32) for name in _ROW_PARTS], 1)


def _padded(vectors: Sequence[Rows], most: int, width: int) -> Rows:
    """(L, M, E) of the descriptions (m, E) of each label; missing ones are zeros."""
    rows = np.zeros((len(vectors), most, width), np.float32)
    for row, described in zip(rows, vectors, strict=True):
        row[: len(described)] = described
    return rows


def choose_labels(
    bundle: Bundle, named: Words | None, threshold: Threshold | None, dtype: str = "fp32",
    precision: float | None = None, *, keep_own: bool = False,
) -> LabelSet:  # fmt: skip
    """The labels of `--labels` with the thresholds of `--threshold` or `--precision`.

    `named` are words, or the name of a word list, a `labels.jsonl`, a bundle or a JSON file of
    descriptions; `+FILE`, as `keep_own`, adds to the bundle's own labels. Words that the bundle
    knows keep what it learnt of them; others are embedded by its text encoder. Words alone have the
    thresholds of a list where the bundle knows what scores are worth; else new ones take
    `open_set_threshold`.
    """
    if precision is not None and threshold is not None:
        raise UsageProblem("--precision chooses the thresholds: leave out --threshold")
    chosen = bundled = own_labels(bundle, dtype, precision)
    if named is not None:
        if isinstance(named, str) and named.startswith("+"):
            named, keep_own = named[1:], True
        chosen = _with_words(bundle, bundled, read_words(named), keep_own, precision is not None)
    if threshold is not None:
        bends = np.zeros(len(chosen.labels), bool)
        chosen = replace(chosen, thresholds=_thresholds(threshold, chosen), bends=bends)
    return chosen


def read_words(named: Words) -> LabelSystem:
    """Words as a label system, or that of a file: it may give each tag its describing sentences."""
    if isinstance(named, LabelSystem):
        return named
    if not isinstance(named, str | os.PathLike):
        listed: list[Any] = list(named)
        if not listed or not all(isinstance(word, str) and word.strip() for word in listed):
            raise UsageProblem("labels: not a list of words")
        return LabelSystem.from_tags(word.strip() for word in listed)
    if unpacked_name(Path(named).name).endswith(".json"):
        return _read_descriptions(Path(named))
    return LabelSystem.read(Path(named))


def _read_descriptions(path: Path) -> LabelSystem:
    """The labels of a JSON object, or a list of such, as `*_llm_tag_descriptions.json`."""
    try:
        table: Any = orjson.loads(read_text(path))
    except orjson.JSONDecodeError as error:
        raise RunProblem(f"{path}: {error}") from error
    tables = table if isinstance(table, list) else [table]
    if not all(isinstance(one, dict) for one in tables) or not any(tables):
        raise RunProblem(f"{path}: expected an object: tag -> list of sentences, or a list of such")
    labels = []
    for tag, sentences in (pair for one in tables for pair in one.items()):
        sentences = [sentences] if isinstance(sentences, str) else sentences
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise RunProblem(f"{path}: {tag!r}: expected a list of sentences")
        labels.append(Label(tag, descriptions=tuple(sentences)))
    return LabelSystem(labels)


def _with_words(
    bundle: Bundle, bundled: LabelSet, words: LabelSystem, keep_own: bool, is_precise: bool
) -> LabelSet:
    """The words, behind the bundle's own labels or alone."""
    labels = list(bundled.labels) if keep_own else []
    limits = bundled.thresholds[: len(labels)].tolist()
    own_ids: list[int | None] = list(range(len(labels)))  # None for a new word
    for word in words:
        ids = () if word.descriptions else bundled.labels.ids(word.tag)
        if ids and keep_own:
            continue
        # Without evidence, a label that is asked for by name is as good as a new word.
        is_known = bool(ids) and bundled.labels[ids[0]].validated
        usual = float(bundled.thresholds[ids[0]]) if is_known else bundle.open_set_threshold
        if ids and word == Label(word.tag):  # of a plain list
            known = bundled.labels[ids[0]]
            word = Label(word.tag, known.kind, names=known.names)
        labels.append(word)
        limits.append(usual if word.threshold is None else word.threshold)
        own_ids.append(ids[0] if ids else None)
    rows = _rows(bundle, bundled.rows, labels, own_ids)
    trusted = [None if i is None or not bundled.labels[i].validated else i for i in own_ids]
    calibration = bundled.calibration and bundled.calibration.of(trusted)
    bends = np.array([i is not None and bool(bundled.bends[i]) for i in own_ids])
    thresholds = np.array(limits, np.float64)
    if calibration is not None and not (keep_own or is_precise):
        own = np.array([word.threshold is not None for word in words])
        thresholds = np.where(own, thresholds, calibration.listed_thresholds())
        bends[:] = False
    return LabelSet(LabelSystem(labels), rows, thresholds, bends, calibration)


def _rows(
    bundle: Bundle, known_rows: Rows, labels: Sequence[Label], own_ids: Sequence[int | None]
) -> Rows:
    """The rows of labels: known ones have theirs, new words their text and what they borrow."""
    new = [label for label, own_id in zip(labels, own_ids, strict=True) if own_id is None]
    vectors = _embed(bundle, new) if new else iter(())
    if known_rows.ndim == 3:
        parts = [next(vectors) if i is None else known_rows[i] for i in own_ids]
        return _padded(parts, max(known_rows.shape[1], *map(len, parts)), known_rows.shape[2])
    rows = np.empty((len(labels), known_rows.shape[1]), np.float32)
    source = np.array([-1 if i is None else i for i in own_ids])
    rows[source >= 0] = known_rows[source[source >= 0]]
    places = iter(np.flatnonzero(source < 0).tolist())
    for block in chunks(vectors, BLOCK):
        texts, owned = np.split(known_rows, [block[0].shape[1]], 1)
        # Always as many at once, so that a word's last digits do not depend on the words beside it.
        words = np.zeros((BLOCK, texts.shape[1]), np.float32)
        ends = np.cumsum([len(described) for described in block])
        parts = np.split(unit(np.concatenate(block)), ends[:-1])
        words[: len(block)] = [part[0] if len(part) == 1 else part.mean(0) for part in parts]
        words = unit(words)
        made = np.concatenate([words, borrowed(words, texts, owned)], 1)
        rows[[next(places) for _ in block]] = made[: len(block)]
    return rows


def _embed(bundle: Bundle, labels: Sequence[Label]) -> Iterator[Rows]:
    """The vectors (M, E) of each label: of its descriptions, else (1, E) of its name."""
    encoder = read_text_encoder(bundle.path / TEXT_FOLDER)
    if encoder is None:
        raise RunProblem(f"{bundle.path}: has no text encoder, so it cannot take new words")
    for part in chunks(labels, EMBEDDED_AT_ONCE):
        names = [label.tag for label in part if not label.descriptions]
        of_names = iter(encoder.embed_names(names) if names else ())
        for label in part:
            texts = label.descriptions
            vectors = encoder.embed_sentences(texts) if texts else next(of_names)[None]
            empty = ~vectors.any(1)
            if empty.any():
                unknown = (texts or [label.tag])[int(empty.argmax())]
                message = f"the model's text encoder knows no part of {unknown!r}"
                raise RunProblem(f"label {label.tag!r}: {message}")
            yield vectors


def borrowed(words: Rows, texts: Rows, owned: Rows) -> Rows:
    """What new words borrow from the labels nearest in meaning, (N, R).

    Trained labels own vectors that their text does not give ("couch" has learnt what sofas look
    like). `words` (N, E) and `texts` (L, E) are unit embeddings, `owned` (L, R) is what the labels
    own. The mixture weighs labels by exp(sharpness * cosine) and is scaled by the square of the
    best cosine, so that a word without a neighbour borrows next to nothing.
    """
    weights, best = _nearness(words, texts)
    return np.asarray(best**2 * (weights @ owned), np.float32)


def _nearness(words: Rows, texts: Rows) -> tuple[Rows, Rows]:
    """How much each label counts for words (N, L), and the words' best cosines (N, 1)."""
    cosines = words @ texts.T  # (N, L)
    best = cosines.max(axis=1, keepdims=True, initial=0.0)
    weights = np.exp(SHARPNESS * (cosines - best))
    weights /= weights.sum(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    return weights, best


def of_nearest(words: Rows, texts: Rows, values: Rows) -> Rows:
    """For words (N, E) the mean of `values` (L,) over the labels nearest in meaning, (N,)."""
    blocks = (words[start : start + BLOCK] for start in range(0, len(words), BLOCK))
    return np.concatenate([_nearness(block, texts)[0] @ values for block in blocks])


def peer_label_set(tags: Sequence[str], usual: float, threshold: Threshold | None) -> LabelSet:
    """The labels of a tagger that takes no rows; `usual` is the threshold of each."""
    labels = LabelSystem.from_tags(tags)
    rows, limits = np.zeros((len(labels), 0), np.float32), np.full(len(labels), usual)
    plain = LabelSet(labels, rows, limits, np.zeros(len(labels), bool))
    return replace(plain, thresholds=_thresholds(threshold, plain))


def _thresholds(threshold: Threshold | None, chosen: LabelSet) -> NDArray[np.float64]:
    """One number for all, numbers for some, or what each label came with."""
    if threshold is None:
        return chosen.thresholds
    if isinstance(threshold, Mapping):
        thresholds = chosen.thresholds.copy()
        for tag, of_tag in threshold.items():
            if not (ids := chosen.labels.ids(tag)):
                raise UsageProblem(f"threshold: no label is called {tag!r}")
            thresholds[list(ids)] = of_tag
        threshold = "threshold"
    elif (number := read_threshold(str(threshold))) is not None:
        return np.full(len(chosen.labels), number)
    else:
        named = np.array(read_thresholds(Path(str(threshold)), chosen.labels, np.nan))
        thresholds = np.where(np.isnan(named), chosen.thresholds, named)
    for tag, value in zip(chosen.labels.tags, thresholds.tolist(), strict=True):
        if not 0 <= value <= 1:
            raise RunProblem(f"{threshold}: {value:g}, of {tag!r}, is no score from 0 to 1")
    return thresholds
