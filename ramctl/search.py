"""`ramctl search`: photos by words, by another photo, and near-duplicates, from their vectors.

Nothing but the embeddings of `tag --embedding` is read of the photos. N photos, L labels, D axes.
"""

import re
import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson

from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, resolve_model
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, escaped
from ramctl.labels import normalise
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import bounded_lines, dumps
from ramctl.records.outputs import records_to_stdout
from ramctl.records.pipes import is_pipe
from ramctl.records.record import JsonObject, Reject, decode_name, encode_name, image_name
from ramctl.records.report import Rejects, Report
from ramctl.tagging.embedding import Floats, PhotoAxes
from ramctl.tagging.formats import table_row
from ramctl.tagging.selection import DECIMALS
from ramctl.tagging.tagger import Tagger
from ramctl.text.static_table import StaticTextEncoder, read_text_encoder, unit

LEAST_SPREAD = 1.0  # of a label's log-odds: in small collections they hardly vary
RIDGE = 1.0  # of the map from texts to log-odds; from 0.1 to 3 it makes no difference
LONGEST = 3  # words of a label that is looked for in a text
_NO_BLANKS = re.compile("[\u2e80-\u9fff\uf900-\ufaff]")  # Chinese, Japanese
_WORDS = re.compile(f"{_NO_BLANKS.pattern}|[^\\W\u2e80-\u9fff\uf900-\ufaff][\\w'-]*")
_ENDINGS = (
    ("ies", "y"), ("es", ""), ("s", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"),
)  # fmt: skip
# Near-duplicates have a cosine of LEAST_COSINE from the mean, in units of an axis' standard
# deviation, or of NOISE for each of 1,000 labels where it varies less: what copies differ by. A few
# photos do not tell which axes matter: of them log-odds may be MOST_APART, the root of the mean
# square. Both limits leave out the other photos of flickr8k-dev (ramctl/tagging/README.md).
FEWEST = 1000
ENOUGH = 16_384  # photos that tell how labels vary
BLOCK = 4096  # photos compared with as many others at a time
LEAST_COSINE, NOISE, MOST_APART = 0.85, 0.68, 0.36


class Found(NamedTuple):
    """A photo that was found, by its place among all."""

    image: str
    score: float
    place: int


class PhotoSearch:
    """Answers from records with the `embedding` of `ramctl tag --embedding`.

    `PhotoSearch("tags.jsonl").words("a dog on a beach")` are the twenty photos that fit best.
    RunProblem where there are no such records, or they are another model's than `model`'s, and
    without `rejects` for a vector that no photo can have.
    """

    def __init__(
        self, path: str | Path, model: str = "mini", *, rejects: Rejects | None = None
    ) -> None:
        self._path, self._model = str(path), model
        self._bundle = Bundle.open(resolve_model(model))
        self._axes = PhotoAxes.of(self._bundle)
        packed, images, lines = bytearray(), list[str](), array("I")
        for line, fields in self._records():
            try:
                packed += self._axes.decode(fields.get("embedding"))
                images.append(image_name(fields))
                lines.append(line)
            except RecordProblem as problem:
                raise RunProblem(f"{path}:{line}: {problem.message}") from problem
        halves = np.frombuffer(packed, "<f2").reshape(len(images), self._axes.axes.shape[1])
        points = halves.astype(np.float32)
        # One that is too long, or not finite, would make all others copies of each other.
        is_possible = np.linalg.norm(points, axis=1) <= self._axes.longest
        for i in np.flatnonzero(~is_possible).tolist():
            reject = Reject(
                self._path, lines[i], "search", "bad_field",
                "embedding is not of `ramctl tag`: a value is not finite, or too large",
                {"image": encode_name(images[i])},
            )  # fmt: skip
            if rejects is None:
                raise RunProblem(f"{reject.place}: {reject.message}")
            rejects.add(reject)
        self._places = np.flatnonzero(is_possible).tolist()  # of photos, among all records
        self._images = [images[place] for place in self._places]
        if not self._images:
            raise RunProblem(f"{path}: no records")
        self._points = points if is_possible.all() else points[is_possible]
        self._middle = self._points.mean(0)
        self._points -= self._middle

    def _records(self) -> Iterator[tuple[int, JsonObject]]:
        """The number of each record's line, and its fields."""
        with open_input(self._path) as stream:
            for number, line in enumerate(bounded_lines(stream), 1):
                place = f"{self._path}:{number}"
                try:
                    fields = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    raise RunProblem(f"{place}: not JSON: {error}") from error
                if not isinstance(fields, dict):
                    raise RunProblem(f"{place}: not a record")
                yield number, fields

    def records(self, places: Sequence[int]) -> list[JsonObject]:
        """The records of photos, by their places among all; the file is read once more."""
        wanted = set(places)
        found = {i: fields for i, (_, fields) in enumerate(self._records()) if i in wanted}
        return [found[place] for place in places]

    def __len__(self) -> int:
        return len(self._images)

    def words(self, text: str, n: int = 20) -> list[Found]:
        """The n photos that fit a text best; UsageProblem where the model knows no word of it.

        A score is a sum over the labels that the text names: by how many of their standard
        deviations the photo's log-odds are above the mean, and what the text as a whole adds.
        """
        return self._best(self._points @ (self._label_weights(text) @ self._axes.axes), n)

    def like(self, photo: str, n: int = 20) -> list[Found]:
        """The n photos most like a photo, by the cosine of their vectors seen from the mean.

        The photo is one of the file, which is not given itself, or else any that can be read;
        RecordProblem for one that cannot.
        """
        own = self._images.index(photo) if photo in self._images else None
        if own is None:
            result = Tagger.from_pretrained(self._model, dense=True).tag(photo)
            vector = self._axes.vector(np.array(result.dense)) - self._middle
        else:
            vector = self._points[own]
        lengths = np.maximum(np.linalg.norm(self._points, axis=1), 1e-6)
        cosines = self._points @ unit(vector) / lengths
        if own is not None:
            cosines[own] = -np.inf
        return self._best(cosines, min(n, len(self) - (own is not None)))

    def duplicates(self) -> list[list[str]]:
        """Groups of near-duplicates: the same photo in another size, quality or close cut.

        Each photo of a group is close to another one of it. Takes time by the square of N.
        """
        points = self._comparable()
        squares = (points**2).sum(1)
        group = list(range(len(points)))  # each photo's parent in its group, or itself

        def first(place: int) -> int:
            while group[place] != place:
                group[place] = place = group[group[place]]
            return place

        starts = [slice(start, start + BLOCK) for start in range(0, len(points), BLOCK)]
        for some, others in combinations_with_replacement(starts, 2):
            apart = squares[some, None] + squares[others] - 2 * points[some] @ points[others].T
            for one, other in np.argwhere(apart < 1).tolist():
                pair = sorted((first(some.start + one), first(others.start + other)))
                group[pair[1]] = pair[0]
        members: dict[int, dict[str, None]] = {}  # names, each once
        for place, name in enumerate(self._images):
            members.setdefault(first(place), {})[name] = None
        return [[*names] for names in members.values() if len(names) > 1]

    def _comparable(self) -> Floats:
        """Each photo (N, D) so that near-duplicates are less than 1 apart."""
        axes = self._axes.axes
        if len(self) < FEWEST:
            return np.asarray(self._points / (MOST_APART * len(axes) ** 0.5), np.float32)
        least = NOISE * (len(axes) / 1000) ** 0.5
        whitened = unit(self._points / np.maximum(self._points.std(0), least))
        return np.asarray(whitened / (2 - 2 * LEAST_COSINE) ** 0.5, np.float32)

    def _label_weights(self, text: str) -> Floats:
        """How much each label's log-odds (L) count for a text."""
        labels = self._bundle.labels
        ids = [*named_labels(text, labels.ids)]
        is_english = bool(ids)
        ids = ids or [*named_labels(text, lambda word: self._by_name.get(normalise(word), ()))]
        weights = np.zeros(len(labels), np.float32)
        axes = self._axes.axes[ids]
        spread = np.sqrt(np.maximum(((axes @ self._covariance) * axes).sum(1), 0))
        weights[ids] = 1 / np.maximum(spread, LEAST_SPREAD)
        if self._encoder is not None and (is_english or not ids):
            (sentence,) = self._encoder.embed_sentences([text])
            if sentence.any():
                weights += self._text_map @ (sentence - self._texts.mean(0))
        if not weights.any():
            raise UsageProblem(f"{text!r}: the model knows no word of it")
        return weights

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """The labels that have each name in another language than their own."""
        found: dict[str, list[int]] = {}
        for index, label in enumerate(self._bundle.labels):
            for name in label.names.values():
                found.setdefault(normalise(name), []).append(index)
        return found

    @cached_property
    def _encoder(self) -> StaticTextEncoder | None:
        encoder = read_text_encoder(self._bundle.path / TEXT_FOLDER)
        # Of a model with a CLIP text encoder the labels alone: that would have to be fetched.
        return encoder if isinstance(encoder, StaticTextEncoder) else None

    @cached_property
    def _texts(self) -> Floats:
        """The embeddings (L, E) of the labels' texts."""
        return self._bundle.tensors(["labels.text"])["labels.text"].astype(np.float32)

    @cached_property
    def _text_map(self) -> Floats:
        """(L, E) from a text to weights, whose sum of log-odds is what they say of the text.

        By ridge regression: the direction in the space of texts in which log-odds rise.
        """
        texts = self._texts - self._texts.mean(0)
        inner = texts.T @ texts + RIDGE * np.eye(texts.shape[1], dtype=np.float32)
        return np.asarray(np.linalg.solve(inner, texts.T).T, np.float32)

    @cached_property
    def _covariance(self) -> Floats:
        some = self._points[:: -(-len(self) // ENOUGH)]
        return np.asarray(some.T @ some / len(some), np.float32)

    def _best(self, scores: Floats, n: int) -> list[Found]:
        best = np.argsort(-scores, kind="stable")[:n]
        return [Found(self._images[i], float(scores[i]), self._places[i]) for i in best.tolist()]


def named_labels(text: str, ids_of: Callable[[str], Sequence[int]]) -> set[int]:
    """The labels that a text names, the longest names first; inflected English words too.

    `ids_of` gives the labels of a name. Where no blanks stand between words, each character is one.
    """
    words = _WORDS.findall(text)
    found: set[int] = set()
    start = 0
    while start < len(words):
        glue = "" if _NO_BLANKS.match(words[start]) else " "
        for end in range(min(start + (LONGEST if glue else 3 * LONGEST), len(words)), start, -1):
            names = (glue.join([*words[start : end - 1], x]) for x in _forms(words[end - 1]))
            if ids := next(filter(None, map(ids_of, names)), ()):
                found.update(ids)
                break
        else:
            end = start + 1
        start = end
    return found


def _forms(word: str) -> Iterator[str]:
    """A word, and what it may be an inflection of."""
    yield word
    for ending, base in _ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < len(word) and len(stem) > 2:
            yield stem + base
            if not base and stem[-1] == stem[-2]:  # running
                yield stem[:-1]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What `ramctl search` is asked for; the defaults are its own."""

    file: Path
    words: tuple[str, ...] = ()
    like: str | None = None
    duplicates: bool = False
    number: int = 20
    format: str = ""  # jsonl, text; empty: what suits the output
    model: str = "mini"
    quiet: bool = False


def run(options: SearchOptions) -> Report:
    """Answer on standard output; the report of the run."""
    text = " ".join(options.words).strip()
    if (bool(text), options.like is not None, options.duplicates).count(True) != 1:
        raise UsageProblem("name what to search for: words, --like PHOTO or --duplicates")
    if is_pipe(options.file):
        raise UsageProblem(
            f"{options.file}: a pipe can be read once, and search reads twice; name a file"
        )
    report = Report("search", quiet=options.quiet, unit="photos")
    with Rejects(report, None) as rejects:
        search = PhotoSearch(options.file, options.model, rejects=rejects)
    rows: list[JsonObject]
    if options.duplicates:
        rows = [{"images": [*map(encode_name, names)]} for names in search.duplicates()]
    else:
        try:
            ask, question = (search.words, text) if text else (search.like, options.like or "")
            found = ask(question, options.number)
        except RecordProblem as problem:
            raise UsageProblem(f"--like: {problem.message}") from problem
        rows = search.records([one.place for one in found])
        for row, one in zip(rows, found, strict=True):
            del row["embedding"]
            row["score"] = round(one.score, DECIMALS)
    is_read = sys.stdout is not None and sys.stdout.isatty()
    encode = _text_line if (options.format or ("text" if is_read else "jsonl")) == "text" else dumps
    with records_to_stdout() as stream:
        stream.writelines(map(encode, rows))
    what = "groups of copies in" if options.duplicates else "of"
    report.say(f"{len(rows)} {what} {len(search)} photos")
    return report


def _text_line(row: JsonObject) -> bytes:
    names = [escaped(decode_name(name)) for name in row.get("images") or [row["image"]]]
    score = [f"{row['score']:.{DECIMALS}f}"] if "score" in row else []
    return table_row([*score, *names], "\t")
