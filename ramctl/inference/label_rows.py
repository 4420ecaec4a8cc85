"""Label rows, a model's input: those of a bundle's labels, and rows made of new words.

L labels, M descriptions of one label, E width of text embeddings, W width of a label's row.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, read_labels
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Label, Labels
from ramctl.records.files import read_text, unpacked_name
from ramctl.records.parallel import chunks
from ramctl.text.static_table import read_text_encoder, unit

Rows = NDArray[np.float32]
#: Labels to look for: their words, or a file or bundle that holds them.
Words = str | os.PathLike[str] | Iterable[str] | Labels
SHARPNESS = 20.0  # of the mixture of neighbours; chosen on labels left out
EMBEDDED_AT_ONCE = 8192  # new words, which bounds the memory that a long list needs
BLOCK = 128  # new words whose neighbours are mixed at a time
TEXTS = "labels.text"  # the bundle's tensor of its labels' embeddings
_ROW_PARTS = (TEXTS, "labels.own", "labels.head", "labels.bias")


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


def _padded(vectors: Sequence[Rows], number: int, width: int) -> Rows:
    """(L, M, E) of the descriptions (m, E) of each label; missing ones are zeros."""
    rows = np.zeros((len(vectors), number, width), np.float32)
    for row, described in zip(rows, vectors, strict=True):
        row[: len(described)] = described
    return rows


def read_words(words: Words) -> Labels:
    """The label system of words, or of a file; a JSON file describes tags by sentences."""
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
    except orjson.JSONDecodeError as error:
        raise RunProblem(f"{path}: {error}") from error
    tables = table if isinstance(table, list) else [table]
    if not all(isinstance(table, dict) for table in tables) or not any(tables):
        raise RunProblem(f"{path}: expected tags with lists of sentences, as an object or several")
    labels = []
    for tag, sentences in (pair for table in tables for pair in table.items()):
        sentences = [sentences] if isinstance(sentences, str) else sentences
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise RunProblem(f"{path}: {tag!r}: expected a list of sentences")
        labels.append(Label(tag, descriptions=tuple(sentences)))
    return Labels(labels)


def rows_of_words(
    bundle: Bundle, known_rows: Rows, labels: Sequence[Label], known_ids: Sequence[int | None]
) -> Rows:
    """The rows of labels: the bundle's for known ones; new words get text and borrowed vectors."""
    new = [label for label, known_id in zip(labels, known_ids, strict=True) if known_id is None]
    vectors = _embed(bundle, new) if new else iter(())
    if known_rows.ndim == 3:
        parts = [next(vectors) if i is None else known_rows[i] for i in known_ids]
        return _padded(parts, max(known_rows.shape[1], *map(len, parts)), known_rows.shape[2])
    rows = np.empty((len(labels), known_rows.shape[1]), np.float32)
    source = np.array([-1 if i is None else i for i in known_ids])
    rows[source >= 0] = known_rows[source[source >= 0]]
    places = iter(np.flatnonzero(source < 0).tolist())
    for block in chunks(vectors, BLOCK):
        texts, trained = np.split(known_rows, [block[0].shape[1]], 1)
        # Always as many at once, so that a word's last digits do not depend on the words beside it.
        words = np.zeros((BLOCK, texts.shape[1]), np.float32)
        ends = np.cumsum([len(described) for described in block])
        parts = np.split(unit(np.concatenate(block)), ends[:-1])
        words[: len(block)] = [part[0] if len(part) == 1 else part.mean(0) for part in parts]
        words = unit(words)
        made = np.concatenate([words, borrowed(words, texts, trained)], 1)
        rows[[next(places) for _ in block]] = made[: len(block)]
    return rows


def _embed(bundle: Bundle, labels: Sequence[Label]) -> Iterator[Rows]:
    """The vectors (M, E) of each label: of its descriptions, else (1, E) of its name."""
    encoder = read_text_encoder(bundle.path / TEXT_FOLDER)
    if encoder is None:
        raise RunProblem(f"{bundle.path}: has no text encoder, so it cannot take new words")
    for part in chunks(labels, EMBEDDED_AT_ONCE):
        names = [label.tag for label in part if not label.descriptions]
        name_vectors = iter(encoder.embed_names(names) if names else ())
        for label in part:
            texts = label.descriptions
            vectors = encoder.embed_sentences(texts) if texts else next(name_vectors)[None]
            empty = ~vectors.any(1)
            if empty.any():
                unknown = (texts or [label.tag])[int(empty.argmax())]
                message = f"the model's text encoder knows no part of {unknown!r}"
                raise RunProblem(f"label {label.tag!r}: {message}")
            yield vectors


def borrowed(words: Rows, texts: Rows, trained: Rows) -> Rows:
    """Mixtures of trained vectors, for new words, of the labels nearest in meaning, (N, R).

    Training gives labels vectors that their text does not give ("couch" has learnt what sofas look
    like). `words` (N, E) and `texts` (L, E) are unit embeddings, `trained` (L, R) these vectors.
    The mixture weighs labels by exp(sharpness * cosine) and is scaled by the square of the
    best cosine, so that a word without a neighbour borrows next to nothing.
    """
    weights, best = _nearness(words, texts)
    return np.asarray(best**2 * (weights @ trained), np.float32)


def _nearness(words: Rows, texts: Rows) -> tuple[Rows, Rows]:
    """How much each label counts for words (N, L), and the words' best cosines (N, 1)."""
    cosines = words @ texts.T  # (N, L)
    best = cosines.max(axis=1, keepdims=True, initial=0.0)
    weights = np.exp(SHARPNESS * (cosines - best))
    weights /= weights.sum(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    return weights, best


def nearest_means(words: Rows, texts: Rows, values: Rows) -> Rows:
    """For words (N, E) the mean of `values` (L,) over the labels nearest in meaning, (N,)."""
    blocks = (words[start : start + BLOCK] for start in range(0, len(words), BLOCK))
    return np.concatenate([_nearness(block, texts)[0] @ values for block in blocks])
