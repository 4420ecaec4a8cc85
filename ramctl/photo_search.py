"""`ramctl search`: photos by words, by another photo, and near-duplicates.

Only the embeddings of `tag --embedding` are read, no photos. N photos, L labels, D axes.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, resolve_model
from ramctl.decide.selection import DECIMALS
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, escaped
from ramctl.photos.finding import Neighbours
from ramctl.records.inputs import unread_inputs
from ramctl.records.jsonl import dumps
from ramctl.records.outputs import records_to_stdout
from ramctl.records.pipes import is_pipe
from ramctl.records.record import JsonObject, Record, Reject, decode_name, encode_name, image_name
from ramctl.records.report import Rejects, Report
from ramctl.tagging.embedding import Floats, PhotoAxes
from ramctl.tagging.output_formats import table_row
from ramctl.tagging.tagger import Tagger
from ramctl.text.static_table import StaticTextEncoder, read_text_encoder, unit

MIN_SPREAD = 1.0  # of a label's log-odds: in small collections they hardly vary
RIDGE = 1.0  # of the map from texts to log-odds; from 0.1 to 3 it makes no difference
MAX_NAME_WORDS = 3  # of a label's name in a text
_NO_BLANKS = re.compile("[\u2e80-\u9fff\uf900-\ufaff]")  # Chinese, Japanese
_WORDS = re.compile(f"{_NO_BLANKS.pattern}|[^\\W\u2e80-\u9fff\uf900-\ufaff][\\w'-]*")
_ENDINGS = (
    ("ies", "y"), ("es", ""), ("s", ""), ("ing", ""), ("ing", "e"), ("ed", ""), ("ed", "e"),
)  # fmt: skip
# Near-duplicates have a cosine of MIN_COSINE from the mean, in units of the standard deviation of
# each axis, or of MIN_DEVIATION for each of 1,000 labels where an axis varies less. Fewer than
# MIN_PHOTOS cannot show which axes vary: there the root mean square of the differences between
# log-odds is at most MAX_DIFFERENCE. `scripts/bench/search.py copies` measures them.
MIN_PHOTOS = 1000
MIN_COSINE, MIN_DEVIATION, MAX_DIFFERENCE = 0.85, 0.68, 0.36
SAMPLE = 16_384  # photos that the covariance of axes is estimated from
BLOCK = 4096  # photos compared with as many others at a time


class Found(NamedTuple):
    """A photo of an answer, and its place among all records."""

    image: str
    score: float
    place: int


class PhotoSearch:
    """Answers from records with the `embedding` of `ramctl tag --embedding`.

    `PhotoSearch("tags.jsonl").words("a dog on a beach")` are the twenty photos that fit best.
    RunProblem where there are no such records, or another model than `model` made them. Vectors
    that no photo can have go to `rejects`; without it they are a RunProblem.
    """

    def __init__(
        self, path: str | Path, model: str = "mini", *, rejects: Rejects | None = None
    ) -> None:
        self._path, self._model = str(path), model
        self._bundle = Bundle.open(resolve_model(model))
        self._axes = PhotoAxes.from_bundle(self._bundle)
        longest = self._axes.max_length
        packed, self._images, self._places = bytearray(), list[str](), list[int]()
        for place, record in enumerate(self._records()):
            try:
                vector = self._axes.decode(record.fields.get("embedding"))
                name = image_name(record.fields)
            except RecordProblem as problem:
                raise RunProblem(f"{record.place}: {problem.message}") from problem
            # A vector that is too long, or not finite, would make all others near-duplicates.
            if np.linalg.norm(np.frombuffer(vector, "<f2").astype(np.float32)) <= longest:
                packed += vector
                self._images.append(name)
                self._places.append(place)
                continue
            reason = "embedding is not of `ramctl tag`: a value is not finite, or too large"
            if rejects is None:
                raise RunProblem(f"{record.place}: {reason}")
            invalid = RecordProblem(reason, code="bad_field")
            rejects.add(Reject.of(record, invalid, "search"))
        if not self._images:
            raise RunProblem(f"{path}: no records")
        vectors = np.frombuffer(packed, "<f2").reshape(len(self), self._axes.axes.shape[1])
        self._points = vectors.astype(np.float32)
        self._mean = self._points.mean(0)
        self._points -= self._mean

    def _records(self) -> Iterator[Record]:
        for make in unread_inputs([self._path], None, "search"):
            # Without checks of other fields, which take as long as all the rest.
            if isinstance(item := make(stamped=False, forms={}), Reject):
                raise RunProblem(f"{item.place}: {item.message}")
            yield item

    def records(self, places: Sequence[int]) -> list[JsonObject]:
        """The records at these places among all, without tags that the photos' sidecars refuse.

        The file is read once more.
        """
        from ramctl.export.export_records import without_refused

        requested, leave_out = set(places), without_refused(Neighbours())
        found = {i: record for i, record in enumerate(self._records()) if i in requested}
        for record in found.values():
            leave_out(record, record.fields)
        return [found[place].fields for place in places]

    def __len__(self) -> int:
        return len(self._images)

    def words(self, text: str, n: int = 20) -> list[Found]:
        """The n photos that fit a text best; UsageProblem where the model knows no word of it.

        A score is a sum over the labels that the text names, of how many standard deviations the
        photo's log-odds are above the mean, plus a term for the text as a whole.
        """
        return self._best(self._points @ (self._label_weights(text) @ self._axes.axes), n)

    def like(self, photo: str, n: int = 20) -> list[Found]:
        """The n photos most like a photo, by the cosine of their vectors from the mean.

        The photo is one of the file, and then not in the answer, or else any that can be read;
        RecordProblem for one that cannot.
        """
        index = self._images.index(photo) if photo in self._images else None
        if index is None:
            result = Tagger.from_pretrained(self._model, dense=True).tag(photo)
            vector = self._axes.vector(np.array(result.dense)) - self._mean
        else:
            vector = self._points[index]
        lengths = np.maximum(np.linalg.norm(self._points, axis=1), 1e-6)
        cosines = self._points @ unit(vector) / lengths
        if index is not None:
            cosines[index] = -np.inf
        return self._best(cosines, min(n, len(self) - (index is not None)))

    def duplicates(self) -> list[list[str]]:
        """Groups of near-duplicates: the same photo in another size, quality or close crop.

        Each photo of a group is close to another one of it. The time grows with the square of N.
        """
        points = self._comparable()
        squares = (points**2).sum(1)
        group = list(range(len(points)))  # each photo's parent in its group, or itself

        def first(place: int) -> int:
            while group[place] != place:
                group[place] = place = group[group[place]]
            return place

        starts = [slice(start, start + BLOCK) for start in range(0, len(points), BLOCK)]
        for rows, columns in combinations_with_replacement(starts, 2):
            apart = squares[rows, None] + squares[columns] - 2 * points[rows] @ points[columns].T
            for row, column in np.argwhere(apart < 1).tolist():
                pair = sorted((first(rows.start + row), first(columns.start + column)))
                group[pair[1]] = pair[0]
        members: dict[int, dict[str, None]] = {}  # names, each once
        for place, name in enumerate(self._images):
            members.setdefault(first(place), {})[name] = None
        return [[*names] for names in members.values() if len(names) > 1]

    def _comparable(self) -> Floats:
        """The photos' vectors (N, D), scaled so that near-duplicates are less than 1 apart."""
        axes = self._axes.axes
        if len(self) < MIN_PHOTOS:
            return np.asarray(self._points / (MAX_DIFFERENCE * len(axes) ** 0.5), np.float32)
        min_deviation = MIN_DEVIATION * (len(axes) / 1000) ** 0.5
        whitened = unit(self._points / np.maximum(self._points.std(0), min_deviation))
        return np.asarray(whitened / (2 - 2 * MIN_COSINE) ** 0.5, np.float32)

    def _label_weights(self, text: str) -> Floats:
        """The weights (L,) of the labels' log-odds for a text."""
        labels = self._bundle.labels
        ids = [*labels_in_text(text, labels.ids)]
        is_english = bool(ids)
        ids = ids or [*labels_in_text(text, labels.by_name)]
        weights = np.zeros(len(labels), np.float32)
        axes = self._axes.axes[ids]
        spread = np.sqrt(np.maximum(((axes @ self._covariance) * axes).sum(1), 0))
        weights[ids] = 1 / np.maximum(spread, MIN_SPREAD)
        if self._encoder is not None and (is_english or not ids):
            (sentence,) = self._encoder.embed_sentences([text])
            if sentence.any():
                weights += self._text_map @ (sentence - self._texts.mean(0))
        if not weights.any():
            raise UsageProblem(f"{text!r}: the model knows no word of it")
        return weights

    @cached_property
    def _encoder(self) -> StaticTextEncoder | None:
        encoder = read_text_encoder(self._bundle.path / TEXT_FOLDER)
        # A CLIP text encoder is not used: it would have to be downloaded.
        return encoder if isinstance(encoder, StaticTextEncoder) else None

    @cached_property
    def _texts(self) -> Floats:
        """The embeddings (L, E) of the labels' texts."""
        return self._bundle.tensors(["labels.text"])["labels.text"].astype(np.float32)

    @cached_property
    def _text_map(self) -> Floats:
        """The map (L, E) from the embedding of a text to weights of log-odds, by ridge regression.

        It gives the direction in the space of texts in which a photo's log-odds rise.
        """
        texts = self._texts - self._texts.mean(0)
        inner = texts.T @ texts + RIDGE * np.eye(texts.shape[1], dtype=np.float32)
        return np.asarray(np.linalg.solve(inner, texts.T).T, np.float32)

    @cached_property
    def _covariance(self) -> Floats:
        sampled = self._points[:: -(-len(self) // SAMPLE)]
        return np.asarray(sampled.T @ sampled / len(sampled), np.float32)

    def _best(self, scores: Floats, n: int) -> list[Found]:
        best = np.argsort(-scores, kind="stable")[:n]
        return [Found(self._images[i], float(scores[i]), self._places[i]) for i in best.tolist()]


def labels_in_text(text: str, ids_of: Callable[[str], Sequence[int]]) -> set[int]:
    """The labels that a text names, the longest names first; inflected English words too.

    `ids_of` returns the labels of a name. In Chinese and Japanese each character is a word.
    """
    words = _WORDS.findall(text)
    found: set[int] = set()
    start = 0
    while start < len(words):
        glue = "" if _NO_BLANKS.match(words[start]) else " "
        for end in range(
            min(start + (MAX_NAME_WORDS if glue else 3 * MAX_NAME_WORDS), len(words)), start, -1
        ):
            names = (glue.join([*words[start : end - 1], x]) for x in _forms(words[end - 1]))
            if ids := next(filter(None, map(ids_of, names)), ()):
                found.update(ids)
                break
        else:
            end = start + 1
        start = end
    return found


def _forms(word: str) -> Iterator[str]:
    """A word, and the words that it may be an inflection of."""
    yield word
    for ending, base in _ENDINGS:
        stem = word.removesuffix(ending)
        if len(stem) < len(word) and len(stem) > 2:
            yield stem + base
            if not base and stem[-1] == stem[-2]:  # running
                yield stem[:-1]


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """The options of `ramctl search`."""

    file: Path
    words: tuple[str, ...] = ()
    like: str | None = None
    duplicates: bool = False
    number: int = 20
    format: str = ""  # jsonl, text; empty: text on a terminal, else jsonl
    model: str = "mini"
    quiet: bool = False


def run(options: SearchOptions) -> Report:
    """Answer on standard output; the report of the run."""
    text = " ".join(options.words).strip()
    if (bool(text), options.like is not None, options.duplicates).count(True) != 1:
        raise UsageProblem("name what to search for: words, --like PHOTO or --duplicates")
    if is_pipe(options.file):
        raise UsageProblem(f"{options.file}: search reads its input twice; name a file, not a pipe")
    report = Report("search", quiet=options.quiet, unit="photos")
    with Rejects(report, None) as rejects:
        search = PhotoSearch(options.file, options.model, rejects=rejects)
    rows: list[JsonObject]
    if options.duplicates:
        rows = [{"images": [*map(encode_name, names)]} for names in search.duplicates()]
    else:
        try:
            if text:
                found = search.words(text, options.number)
            else:
                found = search.like(options.like or "", options.number)
        except RecordProblem as problem:
            raise UsageProblem(f"--like: {problem.message}") from problem
        rows = search.records([photo.place for photo in found])
        for row, photo in zip(rows, found, strict=True):
            del row["embedding"]
            row["score"] = round(photo.score, DECIMALS)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    form = options.format or ("text" if is_terminal else "jsonl")
    encode = _text_line if form == "text" else dumps
    with records_to_stdout() as stream:
        stream.writelines(map(encode, rows))
    what = "groups of copies in" if options.duplicates else "of"
    report.notify(f"{len(rows)} {what} {len(search)} photos")
    return report


def _text_line(row: JsonObject) -> bytes:
    names = [escaped(decode_name(name)) for name in row.get("images") or [row["image"]]]
    score = [f"{row['score']:.{DECIMALS}f}"] if "score" in row else []
    return table_row([*score, *names], "\t")
