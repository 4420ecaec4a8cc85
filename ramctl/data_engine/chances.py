"""Chances of labels that captions leave out, from what other taggers say of the photos.

A model's own predictions teach it nothing: only what comes from elsewhere does.
n photos at once, F inputs with a constant one, L labels, K of them that are named on some photo.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, Judged, calibrate, log_odds_of, sigmoid
from ramctl.classes import Classes, read_map
from ramctl.data_engine.heads import FOLDS, HIGHEST, Floats, Photos, Sums, Witness
from ramctl.errors import RecordProblem, RunProblem, attempt
from ramctl.labels import LabelSystem
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    Item,
    JsonObject,
    Record,
    barred_tags,
    guessed_tags,
    image_name,
    is_tagged,
    listed,
    tags_by_caption,
)
from ramctl.records.stream import Outcome
from ramctl.tagger_scores import Photo, TaggerScores, scores_file

FORM = "scores:FILE[,map=FILE]"
LEAST = 0.005  # chance that a record tells
# Chances a record: those that say most beside how often captions name the label. Of photos of
# Flickr8k with one caption these rank what the others name with a mean AUC of 0.693, all chances
# with 0.777, the 64 largest with 0.635.
MOST = 64
DIGITS = 4
# Of each input's variance. On 6,090 photos of Flickr8k with one caption, heads on 412 words of a
# tagger rank what the other captions name with a mean AUC of 0.725 at 0.1, 0.762 at 1 and 0.779 at
# 3; what they say of the one caption is the most likely at 1 to 3.
RIDGE = 2.0
# A line goes below zero: no label is more than four times less likely than on the average photo.
# With the average itself the mean AUC is 0.01 lower; with a 16th the one caption is less likely.
LOWEST_SHARE = 1 / 4
MOST_SCORES = 2_000_000  # that calibrate the heads: more say the same, and take longer
FEWEST = 100  # photos with tags for heads: what fewer teach is noise
AT_ONCE = 1024  # photos
# Mentions that draw a label's rate towards that of all: what captions name differs much from label
# to label (likelihood on further captions), how often a source is right does not.
OF_RECALL, OF_RELIABILITY = 5.0, 50.0
USUAL_RECALL = 0.4  # of what one caption names, that another does: 0.42 on Flickr8k, 0.40 on COCO

Ids = NDArray[np.int64]


class Evidence(NamedTuple):
    """A file that `--evidence` names; `map` is as in `train --distill`."""

    path: Path
    map: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Evidence":
        """What `--evidence` names; UsageProblem for another form."""
        path, settings = scores_file("--evidence", text, FORM, "map")
        return cls(path, Path(settings["map"]) if settings else None)


class Noted(NamedTuple):
    """The photo of a record, and the labels that captions or persons name on it, if anyone did."""

    photo: Photo
    named: Ids | None
    mentions: Ids = np.zeros(0, np.int64)  # those of each of its captions, one after the other
    n_captions: int = 0

    @classmethod
    def of(cls, record: Record, labels: LabelSystem) -> "Noted":
        """RecordProblem without a photo."""
        fields = record.fields
        photo, tags = _photo(record), listed(fields, "tags")
        if not is_tagged(fields):
            return cls(photo, None)
        given = set(tags).difference(guessed_tags(fields, tags))
        captions = tags_by_caption(fields) or [given]
        ids = [
            sorted({label for tag in given.intersection(own) for label in labels.ids(tag)})
            for own in (given, *captions)
        ]
        named, *mentions = (np.array(some, np.int64) for some in ids)
        return cls(photo, named, np.concatenate(mentions), len(mentions))


class Heads:
    """What a tagger says of photos, in the words of the labels.

    A label's chance is the larger of the tagger's own score, where it names the label, and of how
    likely a caption names it, which heads say.
    """

    def __init__(self, evidence: Evidence, labels: LabelSystem, notes: Sequence[Noted]) -> None:
        tagger = TaggerScores.read(evidence.path, "generate")
        classes = Classes(labels, None, read_map(evidence.map))
        self._own = [list(classes.of_tag(name)) for name in tagger.names]
        self._witness = Witness(tagger, (note.photo for note in notes))
        self._known = np.unique(np.concatenate([[], *_named(notes)]).astype(np.int64))
        sums = Sums.of(self._parts(notes), len(self._known))
        if sums is None or not len(self._known) or sums.products[:, -1, -1].sum() < FOLDS:
            raise RunProblem(f"{evidence.path}: too few photos in it have tags to learn from")
        self._lowest, self._weights = sums.base * LOWEST_SHARE, sums.heads(RIDGE)
        self.usual = np.full(len(labels), sums.base.min())  # the chance of each label (L,)
        self.usual[self._known] = sums.base
        is_taught = sums.products[:, -1, -1].sum() >= FEWEST
        self._calibration = self._calibrated(notes) if is_taught else None
        self._worth, self._recall = np.ones(len(labels)), np.zeros(len(labels))
        if self._witness.gives_tags_alone:
            self._worth, self._recall = self._reliability(notes, labels)

    def of(self, photo: Photo, n_captions: int) -> NDArray[np.float32] | None:
        """The chance of each label (L,) that its captions leave out; None for an unseen photo."""
        inputs, is_seen = self._witness.inputs([photo])
        if not is_seen[0]:
            return None
        chances = np.zeros(len(self.usual), np.float32)
        if self._calibration is not None:
            known = Photos.of(inputs, is_seen, [photo], np.zeros((2, 0), np.int64))
            scores = self._scores(known.inputs, int(known.fold[0]))[0]
            chances[self._known] = sigmoid(self._calibration.log_odds(log_odds_of(scores)))
        if self._witness.says_probabilities:
            # Captions leave out what is not there, and what is there as often as they do that.
            worth = sigmoid(log_odds_of(self._worth) + n_captions * np.log(1 - self._recall))
            for name, score in zip(*self._witness.scores(photo), strict=True):
                own = self._own[name]
                chances[own] = np.maximum(chances[own], score * worth[own])
        return chances

    def _reliability(self, notes: Sequence[Noted], labels: LabelSystem) -> tuple[Floats, Floats]:
        """How likely a label (L,) is right where a source names it; how often captions repeat it.

        Where it is right, captions name it as often as they repeat each other. Where no record has
        two captions, they are taken to do so as usual, and no label's tags to be less right.
        """
        agreed, asked, again, pairs = np.zeros((4, len(labels)))
        for note in notes:
            named_by = np.bincount(note.mentions, minlength=len(labels))
            again += named_by * (named_by - 1)
            pairs += named_by * (note.n_captions - 1)
            names = self._witness.scores(note.photo)[0]
            said = sorted({label for name in names for label in self._own[name]})
            agreed[said] += named_by[said]
            asked[said] += note.n_captions
        if not pairs.any():
            like = agreed if agreed.any() else asked
            again, pairs = USUAL_RECALL * like * asked.sum() / max(like.sum(), 1.0), asked
        recall = np.minimum(_rates(again, pairs, OF_RECALL), HIGHEST)
        return np.minimum(_rates(agreed, asked * recall, OF_RELIABILITY), HIGHEST), recall

    def _scores(self, inputs: Floats, fold: int) -> Floats:
        """What the heads of the other folds say of photos (n, F), not yet calibrated (n, K)."""
        return np.clip(inputs @ self._weights[fold].T, self._lowest, HIGHEST)

    def _parts(self, notes: Sequence[Noted]) -> Iterator[Photos]:
        """The photos that somebody tagged and the tagger has seen, with the places of labels."""
        tagged = (note for note in notes if note.named is not None)
        for some in chunks(tagged, AT_ONCE):
            photos = [note.photo for note in some]
            named = list(_named(some))
            labels = np.searchsorted(self._known, np.concatenate(named))
            places = np.repeat(np.arange(len(some)), list(map(len, named)))
            yield Photos.of(*self._witness.inputs(photos), photos, np.stack([labels, places]))

    def _calibrated(self, notes: Sequence[Noted]) -> Calibration:
        """What the heads' predictions are worth, by photos that they were not fitted to."""
        tagged = [note for note in notes if note.named is not None]
        some = tagged[:: -(-len(tagged) * len(self._known) // MOST_SCORES)]
        scores, right = [], []
        for inputs, folds, (labels, places) in self._parts(some):
            is_named = np.zeros((len(folds), len(self._known)), bool)
            is_named[places, labels] = True
            for fold in range(FOLDS):
                scores.append(self._scores(inputs[folds == fold], fold))
                right.append(is_named[folds == fold])
        named = np.concatenate(right)
        every = np.ones(named.shape, bool)
        return calibrate(Judged(np.concatenate(scores), named, every), every[0])


class Chances:
    """Adds `chances` to records: those of labels that their tags leave out.

    Of several taggers that have seen a photo the largest chance of a label counts.
    """

    def __init__(
        self, evidence: Iterable[Evidence], labels: LabelSystem, inputs: Iterable[Item]
    ) -> None:
        tried = (attempt(Noted.of, item, labels) for item in inputs if isinstance(item, Record))
        notes = [note for note in tried if isinstance(note, Noted)]  # the run tells of the others
        self.labels = labels
        self.heads = [Heads(one, labels, notes) for one in evidence]

    def of(self, photo: Photo, fields: JsonObject) -> dict[str, float]:
        """The chances by tag of a record with this photo, the largest first.

        None is of a tag that the record has, or that follows from one, or that is barred.
        """
        n = max(len(tags_by_caption(fields)), 1)
        said = [of for heads in self.heads if (of := heads.of(photo, n)) is not None]
        if not said:
            return {}
        chances = np.max(said, axis=0)
        tags = listed(fields, "tags")
        of_tags = [label for tag in tags for label in self.labels.ids(tag)]
        # Who names a boy says that there is a person, for certain.
        implied = [parent for label in of_tags for parent in self.labels[label].parents]
        for tag in (*tags, *implied, *barred_tags(fields)):
            chances[list(self.labels.ids(tag))] = 0
        telling = np.where(chances >= LEAST, chances / self.heads[0].usual, 0)
        some = np.argsort(-telling, kind="stable")[: min(MOST, np.count_nonzero(telling))]
        ranked = some[np.argsort(-chances[some], kind="stable")].tolist()
        return {self.labels[i].tag: round(float(chances[i]), DIGITS) for i in ranked}

    def add(self, record: Record, outcome: Outcome) -> Outcome:
        """What a stage made of a record, with its chances: for `records.stream.watched`."""
        if not isinstance(outcome, RecordProblem):
            outcome["chances"] = self.of(_photo(record), outcome)
        return outcome


def _rates(hits: Floats, of: Floats, shrink: float) -> Floats:
    """Each label's rate (L,), drawn towards that of all; 1 where there is none."""
    of_all = hits.sum() / of.sum() if of.any() else 1.0
    return (hits + shrink * of_all) / (of + shrink)


def _photo(record: Record) -> Photo:
    return Photo(image_name(record.fields), record.base)


def _named(notes: Iterable[Noted]) -> Iterator[Ids]:
    return (note.named for note in notes if note.named is not None)
