"""Photos found by words, by another photo, and near-duplicates, from the vectors of `tag`.

N photos, L labels, D axes, E width of embeddings of texts.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ramctl.apps.question import ENGLISH, Question, inflections, read_question, words_in
from ramctl.checkpoints.bundle import TEXT_FOLDER, Bundle, resolve_model
from ramctl.checkpoints.static_table import StaticTextEncoder, read_text_encoder, unit
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.inference.embedding import Floats, PhotoAxes
from ramctl.photos.finding import photo_stamp
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import dumps, loads
from ramctl.records.record import (
    HUMAN,
    JsonObject,
    Record,
    Reject,
    image_name,
    listed,
    lists_by_tag,
    set_tags,
    tag_language,
)

DECIMALS = 4  # of scores
MIN_SPREAD = 1.0  # of a label's log-odds: in small collections they hardly vary
RIDGE = 1.0  # of the map from texts to log-odds; from 0.1 to 3 it makes no difference
OWN_WORD = 10.0  # the score of a keyword, as of a label that is sure
# Photos that fit a text less are not found. Vectors give log-odds that are 1.6 off: of the tags
# that `mini` gives 487 judged photos, 3 % are lower.
MIN_LOG_ODDS = -4.0  # the mean over the labels that it names
MIN_TEXT_SCORE = 3.0  # the score where it names none
# The cosine of near-duplicates. Of 67 photos it finds 67 that are 1.6 times as large, 15 % brighter
# or JPEGs of quality 40, 63 without 6 % at each side, 30 of half the size (250 pixels) and no grey
# ones; of the 319,600 pairs of 800 other photos it takes one for duplicates.
DUPLICATE = 0.997
BLOCK = 256  # photos that are compared with all others at a time


class Found(NamedTuple):
    """A photo of an answer, and its place among all records."""

    image: str
    score: float
    place: int


class PhotoSearch:
    """Answers from records with the `embedding` of `ramctl tag --embedding`.

    `PhotoSearch("tags.jsonl").words("a dog on a beach")` are the twenty photos that fit best. The
    source is a file, or the records themselves: `[result.record for result in tagger.tag(photos)]`.
    `keywords` is the output of `ramctl import` for the same photos. RunProblem where there are no
    such records, or another model than `model` made them.
    """

    def __init__(
        self, source: str | Path | Sequence[JsonObject], model: str = "mini", *,
        keywords: str | Path | None = None,
    ) -> None:  # fmt: skip
        self._model = model
        self._bundle = Bundle.open(resolve_model(model))
        self._axes = PhotoAxes.from_bundle(self._bundle)
        packed, self._images = bytearray(), list[str]()
        self._lines = list[bytes]()  # the records without vectors
        self._by_word = defaultdict[str, list[int]](list)  # of keywords: the places of photos
        self._refused = defaultdict[int, set[int]](set)  # labels, by the place of their photo
        self._base = Path()
        decisions = {}
        if keywords is not None:
            decisions = {image_name(row.fields): row.fields for row in _records(keywords)}
        for record in _records(source):
            try:
                vector = self._axes.decode(record.fields.pop("embedding", None))
                name = image_name(record.fields)
            except RecordProblem as problem:
                raise RunProblem(f"{record.place}: {problem.message}") from problem
            self._base = record.base
            if keywords is not None and not photo_stamp(name, self._base):
                continue  # deleted since it was indexed
            packed += vector
            self._images.append(name)
            self._lines.append(dumps(record.fields))
            for fields in (record.fields, decisions.get(name, {})):
                self._add_decisions(len(self) - 1, fields)
        if not self._images:
            origin = source if isinstance(source, str | Path) else "search"
            raise RunProblem(f"{origin}: no records")
        vectors = np.frombuffer(packed, "<f2").reshape(len(self), self._axes.axes.shape[1])
        self._points = vectors.astype(np.float32)
        self._mean = self._points.mean(0)
        self._points -= self._mean

    def _add_decisions(self, place: int, fields: JsonObject) -> None:
        """Add the keywords that the owner gave a photo, and the labels that were refused."""
        sources = lists_by_tag(fields, "sources")
        for word in words_in(" ".join(tag for tag in sources if HUMAN in sources[tag])):
            self._by_word[word].append(place)
        for tag in listed(fields, "refused"):
            self._refused[place].update(self._bundle.labels.by_name(tag, tag_language(fields)))

    def rows(self, found: Sequence[Found]) -> list[JsonObject]:
        """The records of photos found, with scores, without tags that were refused."""
        rows = []
        for photo in found:
            fields = loads(self._lines[photo.place])
            if refused := self._refused.get(photo.place):
                known, language = self._bundle.labels, tag_language(fields)
                tags = ((t, known.by_name(t, language)) for t in listed(fields, "tags"))
                set_tags(fields, [tag for tag, ids in tags if refused.isdisjoint(ids)])
            rows.append(fields | {"score": round(photo.score, DECIMALS)})
        return rows

    def __len__(self) -> int:
        return len(self._images)

    def words(
        self,
        text: str,
        n: int = 20,
        *,
        language: str = "",
        notify: Callable[[str], None] = lambda message: None,
    ) -> list[Found]:
        """The n photos that fit a text best, as far as they fit; UsageProblem for unknown words.

        A score is a sum over the labels that the text names, of how many standard deviations the
        photo's log-odds are above the mean, plus a term for an English text as a whole, plus
        OWN_WORD for each word that is in the photo's keywords. Words are of this language, or of
        the one in which most of them name labels. `notify` is called with a line on words that no
        label is named by.
        """
        if language != ENGLISH:
            language = self._bundle.labels.language_code(language or None)
        question = read_question(text, self._bundle.labels, language)
        with_word = {
            word: found for word in question.words if (found := self._with_word(word, question))
        }
        unlabelled = [word for word in question.unlabelled if word not in with_word]
        is_english = (language or question.language or ENGLISH) == ENGLISH
        encoder = self._encoder if is_english else None
        by_text = [word for word in unlabelled if encoder is not None and encoder.knows(word)]
        unknown = [word for word in unlabelled if word not in by_text]
        weights = np.zeros(len(self._bundle.labels), np.float32)
        if ids := [*{*chain(*question.labels)}]:
            spread = (self._points @ self._axes.axes[ids].T).std(0)
            weights[ids] = 1 / np.maximum(spread, MIN_SPREAD)
        if encoder is not None and (ids or by_text):
            rest = (word for word in words_in(text) if word not in unknown)
            (sentence,) = encoder.embed_sentences([" ".join(rest) if unknown else text])
            if sentence.any():
                weights += self._text_weights(sentence)
        if not (weights.any() or with_word):
            keywords = "nor is it a keyword; `ramctl search FOLDER` reads those of the photos"
            raise UsageProblem(f"{text!r}: the model knows no word of it, {keywords}")
        for words, treated in ((by_text, "by its text alone"), (unknown, "left out")):
            if words:
                notify(f"no label for: {', '.join(words)}; {treated}")
        scores = self._points @ (weights @ self._axes.axes)
        fits = self._log_odds(question) >= MIN_LOG_ODDS if ids else scores >= MIN_TEXT_SCORE
        unfit = [x for x, labels in self._refused.items() if labels.intersection(ids)]
        fits[unfit] = False
        for places in with_word.values():
            scores[places] += OWN_WORD
            fits[places] = True
        return self._best(np.where(fits, scores, -np.inf), n)

    def _log_odds(self, question: Question) -> Floats:
        """How likely each photo (N,) shows what a text names: the mean of its labels' log-odds."""
        axes = self._axes.axes
        each = [
            (self._points @ axes[ids].T + axes[ids] @ self._mean).max(1) for ids in question.labels
        ]
        return np.asarray(np.mean(each, axis=0), np.float32)

    def _with_word(self, word: str, question: Question) -> list[int]:
        """The photos with a keyword in which an inflection of a word is."""
        alike = inflections(word, self._by_word, question.language)
        return [*chain.from_iterable(self._by_word[other] for other in alike)]

    def like(self, photo: str, n: int = 20) -> list[Found]:
        """The n photos most like a photo, by the cosine of their vectors from the mean.

        The photo is one of the file, and then not in the answer, or else any that can be read;
        RecordProblem for one that cannot.
        """
        from ramctl.inference.tagger import Tagger

        known = (name for name in (photo, str(Path(photo).resolve())) if name in self._images)
        index = next(map(self._images.index, known), None)
        if index is None:
            result = Tagger.from_pretrained(self._model, dense=True).tag(photo)
            vector = self._axes.vector(np.array(result.dense)) - self._mean
        else:
            vector = self._points[index]
        lengths = np.maximum(np.linalg.norm(self._points, axis=1), 1e-6)
        cosines = self._points @ unit(vector) / lengths
        if index is not None:
            cosines[index] = -np.inf
        return self._best(cosines, n)

    def duplicates(self) -> list[list[str]]:
        """Groups of near-duplicates, the largest file first: all are copies of one of them.

        The time grows with the square of N.
        """
        # Along later axes photos differ less, but there copies hardly differ at all.
        points = unit((self._points + self._mean) * np.arange(1, self._points.shape[1] + 1))
        near = defaultdict[int, list[int]](list)
        for start in range(0, len(points), BLOCK):
            cosines = points[start : start + BLOCK] @ points[start:].T
            for first, other in np.argwhere(np.triu(cosines, 1) >= DUPLICATE).tolist():
                near[start + first].append(start + other)
        groups, taken = list[list[str]](), set[int]()
        for first, others in near.items():
            group = [place for place in (first, *others) if place not in taken]
            names = {self._images[place] for place in group}
            if first not in taken and len(names) > 1:
                groups.append(sorted(names, key=self._size_and_name))
                taken.update(group)
        return groups

    def _size_and_name(self, name: str) -> tuple[int, str]:
        """The key that puts the largest file first; a photo in an archive has no size."""
        with suppress(OSError, ValueError):
            return -(self._base / name).stat().st_size, name
        return 0, name

    @cached_property
    def _encoder(self) -> StaticTextEncoder | None:
        encoder = read_text_encoder(self._bundle.path / TEXT_FOLDER)
        # A CLIP text encoder is not used: it would have to be downloaded.
        return encoder if isinstance(encoder, StaticTextEncoder) else None

    @cached_property
    def _label_texts(self) -> tuple[Floats, Floats, Floats]:
        """The embeddings (L, E) of the labels' texts from their mean, the mean, and E x E."""
        texts = self._bundle.tensors(["labels.text"])["labels.text"].astype(np.float32)
        texts -= (mean := texts.mean(0))
        return texts, mean, texts.T @ texts + RIDGE * np.eye(len(mean), dtype=np.float32)

    def _text_weights(self, sentence: Floats) -> Floats:
        """The weights (L,) of log-odds for the embedding of a text, by ridge regression.

        They are the direction in the space of texts in which a photo's log-odds rise.
        """
        texts, mean, inner = self._label_texts
        return np.asarray(texts @ np.linalg.solve(inner, sentence - mean), np.float32)

    def _best(self, scores: Floats, n: int) -> list[Found]:
        """The photos of the n highest finite scores."""
        best = np.argsort(-scores, kind="stable")[:n].tolist()
        return [
            Found(self._images[place], float(scores[place]), place)
            for place in best
            if scores[place] > -np.inf
        ]


def _records(source: str | Path | Sequence[JsonObject]) -> Iterator[Record]:
    if not isinstance(source, str | Path):
        for place, fields in enumerate(source):
            yield Record({**fields}, f"records[{place}]")
        return
    for item in read_inputs([str(source)], None, "search"):
        if isinstance(item, Reject):
            raise RunProblem(f"{item.place}: {item.message}")
        yield item
