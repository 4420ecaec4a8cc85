"""The vocabulary: the labels that a tagger looks for, and words that are no labels.

L labels, M descriptions of one label, E width of text embeddings, W width of a label's row.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, read_labels
from ramctl.checkpoints.static_table import StaticTextEncoder, read_text_encoder, unit
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.log_odds import Salience
from ramctl.inference.thresholds import Threshold, user_thresholds, usual_thresholds
from ramctl.records.files import read_text, unpacked_name
from ramctl.records.labels import Label, Labels, normalise

Rows = NDArray[np.float32]
#: Words to look for, or the name of a file or bundle that holds them; `+FILE` adds to the labels.
Words = str | os.PathLike[str] | Iterable[str] | Labels
SHARPNESS = 20.0  # of the mixture of neighbours; chosen on labels left out
BLOCK = 128  # new words whose neighbours are mixed at a time
TEXTS = "labels.text"  # the bundle's tensor of its labels' embeddings
_ROW_PARTS = (TEXTS, "labels.own", "labels.head", "labels.bias")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Labels with a model's rows, when they are given, and which of them."""

    labels: Labels
    thresholds: NDArray[np.float64]  # (L,) of probabilities
    salience: Salience | None = None
    allows: bool = False  # the threshold of a likely main thing is lower
    fills_up: bool = False  # a photo with few tags gets less certain ones
    listed: tuple[tuple[str, int], ...] | None = None  # the only words to give, with their ids

    def with_threshold(self, threshold: Threshold | None) -> "Vocabulary":
        """The vocabulary with the thresholds of a user, if any."""
        if threshold is None:
            return self
        chosen = user_thresholds(threshold, self.labels, self.thresholds)
        return replace(self, thresholds=chosen, allows=False, fills_up=False)

    @property
    def columns(self) -> tuple[list[str], list[int] | slice]:
        """The names of the dense scores, and the ids that they are of."""
        if self.listed is None:
            return self.labels.tags, slice(None)
        return [word for word, _ in self.listed], [index for _, index in self.listed]


def plain_vocabulary(tags: Sequence[str], threshold: float) -> Vocabulary:
    """The labels of a tagger that takes no rows, with one threshold."""
    return Vocabulary(Labels.from_tags(tags), np.full(len(tags), threshold))


def open_vocabulary(
    bundle: Bundle, words: Words | None = None, threshold: Threshold | None = None,
    precision: float | None = None, *, language: str = "",
    notify: Callable[[str], None] = lambda message: None,
) -> Vocabulary:  # fmt: skip
    """The bundle's labels, or the words of a list, with the thresholds of the options.

    A word that is a label, its plural or synonym, in English or `language`, is that label; others
    are embedded by the bundle's text encoder. Words that it does not know are named to `notify`;
    RunProblem where no word of a list is known.
    """
    if precision is not None and threshold is not None:
        raise UsageProblem("--precision chooses the thresholds: leave out --threshold")
    labels, listed = label_rows(bundle), None
    salience = Salience.from_bundle(bundle.meta.get("salience"), labels)
    if words is not None:
        adds = isinstance(words, str) and words.startswith("+")
        words_of_list = read_words(words.removeprefix("+") if isinstance(words, str) else words)
        labels, listed = _with_words(bundle, labels, words_of_list, language, notify)
        if adds:
            listed = None
        elif salience is None:  # other labels' scores are not needed
            ids = [index for _, index in listed]
            assert labels.rows is not None
            chosen = zip(listed, [labels[i] for i in ids], strict=True)
            rows = labels.rows[ids]
            labels = Labels.with_rows((x.changed(tag=word) for (word, _), x in chosen), rows)
            listed = None
        if salience is not None:
            salience = Salience.from_bundle(bundle.meta["salience"], labels)
    vocabulary = Vocabulary(
        labels, usual_thresholds(bundle, labels, precision), salience,
        allows=salience is not None, fills_up=salience is not None and precision is None,
        listed=None if listed is None else tuple(listed),
    )  # fmt: skip
    return vocabulary.with_threshold(threshold)


def label_rows(bundle: Bundle) -> Labels:
    """The bundle's labels with their rows, as `ramctl.model.label_queries` lays them out."""
    tensors = bundle.tensors([*_ROW_PARTS, "labels.counts"])
    counts = tensors.pop("labels.counts")
    if len(tensors[TEXTS]) == len(counts):
        rows = np.concatenate([tensors[name] for name in _ROW_PARTS], 1, dtype=np.float32)
    else:
        text = tensors[TEXTS].astype(np.float32, copy=False)
        rows = _padded(np.split(text, np.cumsum(counts)[:-1]), max(counts), text.shape[1])
    if "rows" in bundle.fit:  # of labels that `ramctl fit` added
        rows = np.concatenate([rows, bundle.fit["rows"].astype(np.float32)])
    return Labels.with_rows(bundle.labels, rows)


def _padded(vectors: Sequence[Rows], number: int, width: int) -> Rows:
    """(L, M, E) of the descriptions (m, E) of each label; missing ones are zeros."""
    rows = np.zeros((len(vectors), number, width), np.float32)
    for row, described in zip(rows, vectors, strict=True):
        row[: len(described)] = described
    return rows


def read_words(words: Words) -> Labels:
    """The labels of words, or of a file; a JSON file describes tags by sentences."""
    if isinstance(words, Labels):
        return words
    if not isinstance(words, str | os.PathLike):
        listed: list[Any] = list(words)
        if not listed or not all(isinstance(word, str) and word.strip() for word in listed):
            raise UsageProblem("labels: not a list of words")
        return Labels.from_tags(word.strip() for word in listed)
    if unpacked_name(Path(words).name).endswith(".json"):
        return _read_descriptions(Path(words))
    return read_labels(os.fspath(words))


def _read_descriptions(path: Path) -> Labels:
    """The labels of a JSON object, or of a list of objects, as `*_llm_tag_descriptions.json`."""
    try:
        table: Any = orjson.loads(read_text(path))
        tables = table if isinstance(table, list) else [table]
        pairs = [pair for part in tables for pair in part.items()]
        return Labels(
            Label(tag, descriptions=(texts,) if isinstance(texts, str) else tuple(texts))
            for tag, texts in pairs
        )
    except (ValueError, AttributeError, TypeError) as error:
        expected = "expected tags with lists of sentences, as an object or several"
        raise RunProblem(f"{path}: {expected} ({error})") from error


def _with_words(
    bundle: Bundle, labels: Labels, words: Labels, language: str, notify: Callable[[str], None]
) -> tuple[Labels, list[tuple[str, int]]]:
    """The labels with the words that are none at their end, and the id of each known word."""
    assert labels.rows is not None
    open_curve = bundle.meta.get("open_set", {}).get("calibration")
    curve = None if open_curve is None else (float(open_curve[0]), float(open_curve[1]))
    all_labels, new, found = list(labels), list[Label](), dict[str, int]()
    for word in dict(zip(words.tags, words, strict=True)).values():
        ids = () if word.descriptions else _named(labels, word.tag, language)
        if ids:
            found[word.tag] = ids[0]
            # Without evidence, a label that is words_of_list for by name is as good as a new word.
            if not labels[ids[0]].validated:
                changed = labels[ids[0]].changed(validated=True, calibration=curve)
                all_labels[ids[0]] = changed
        else:
            new.append(word)
    rows, unknown = rows_of_words(bundle, labels.rows, new)
    if unknown:
        notify(f"unknown to the model: {', '.join(unknown)}")
    known = [word for word in new if word.tag not in unknown]
    for index, word in enumerate(known, len(labels)):
        found[word.tag] = index
        all_labels.append(
            Label(word.tag, word.kind, parents=word.parents, names=word.names,
                  descriptions=word.descriptions, threshold=word.threshold, calibration=curve)
        )  # fmt: skip
    if not found:
        raise RunProblem("--labels: the model knows none of the words")
    return Labels.with_rows(all_labels, rows), [
        (tag, found[tag]) for tag in dict.fromkeys(words.tags) if tag in found
    ]


def _named(labels: Labels, word: str, language: str) -> tuple[int, ...]:
    """The ids of the labels that a word or its singular names."""
    if ids := labels.by_name(word, language):
        return ids
    from ramctl.parsing.english.lexicon import noun_lemma  # words alone need them
    from ramctl.parsing.english.wordnet import NOUN, WordNet

    noun, wordnet = normalise(word), WordNet.shared()
    forms = (*wordnet.entry(noun).base_forms.get(NOUN, ()), noun_lemma(noun, wordnet))
    return next((ids for form in forms if (ids := labels.ids(form))), ())


def rows_of_words(
    bundle: Bundle, known: Rows, new: Sequence[Label], *, guesses: bool = False
) -> tuple[Rows, list[str]]:
    """The known rows with those of new words, of text and borrowed vectors, and unknown words.

    With `guesses` words count as known of which the text encoder has some letters alone.
    """
    if not new:
        return known, []
    encoder = read_text_encoder(bundle.path / TEXT_FOLDER)
    if encoder is None:
        return known, [label.tag for label in new]
    vectors, unknown = list[Rows](), list[str]()
    names = [label.tag for label in new if not label.descriptions]
    name_vectors = iter(encoder.embed_names(names) if names else ())
    for label in new:
        texts = label.descriptions
        found = encoder.embed_sentences(texts) if texts else next(name_vectors)[None]
        is_sure = guesses or bool(texts) or not isinstance(encoder, StaticTextEncoder)
        knows = isinstance(encoder, StaticTextEncoder) and encoder.knows_some(label.tag)
        if found.any(1).all() and (is_sure or knows):
            vectors.append(found)
        else:
            unknown.append(label.tag)
    if not vectors:
        return known, unknown
    if known.ndim == 3:
        number = max(known.shape[1], *map(len, vectors))
        rows = _padded([*known, *vectors], number, known.shape[2])
        return rows, unknown
    embeddings, trained = np.split(known, [vectors[0].shape[1]], 1)
    words = unit(np.stack([unit(described).mean(0) for described in vectors]))
    # Always as many at once, so that a word's last digits do not depend on the words beside it.
    filled = np.zeros((-(-len(words) // BLOCK) * BLOCK, words.shape[1]), np.float32)
    filled[: len(words)] = words
    blocks = np.split(filled, len(filled) // BLOCK)
    made = [np.concatenate([block, borrowed(block, embeddings, trained)], 1) for block in blocks]
    return np.concatenate([known, np.concatenate(made)[: len(words)]]), unknown


def borrowed(words: Rows, texts: Rows, trained: Rows, *, but_own: bool = False) -> Rows:
    """Mixtures of trained vectors, for new words, of the labels nearest in meaning, (N, R).

    Training gives labels vectors that their text does not give ("couch" has learnt what sofas look
    like). `words` (N, E) and `texts` (L, E) are unit embeddings, `trained` (L, R) these vectors.
    The mixture weighs labels by exp(sharpness * cosine) and is scaled by the square of the
    best cosine, so that a word without a neighbour borrows next to nothing. `but_own`: the words
    are the labels themselves, none of which borrows from itself.
    """
    cosines = words @ texts.T  # (N, L)
    if but_own:
        np.fill_diagonal(cosines, -1.0)
    best = cosines.max(axis=1, keepdims=True, initial=0.0)
    weights = np.exp(SHARPNESS * (cosines - best))
    weights /= weights.sum(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    return np.asarray(best**2 * (weights @ trained), np.float32)
