"""Probabilities of labels that captions leave out, from other taggers' scores of the photos.

`generate --evidence` adds them to records as `chances`. A model's own predictions teach it nothing:
only what comes from elsewhere does.
n photos at once, F inputs with a constant one, L labels, K of them mentioned on some photo.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.classes import Classes, read_map
from ramctl.data_engine.evidence import implied_ids
from ramctl.data_engine.heads import FOLDS, MAX_P, Photos, Sums, TaggerInputs
from ramctl.decide.calibration import Calibration
from ramctl.decide.fitting import Judged, calibrate
from ramctl.engine.log_odds import Floats, log_odds_of, sigmoid
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
from ramctl.tagger_scores import TaggerScores, scores_file

FORM = "FILE[,map=FILE]"
MIN_PROBABILITY = 0.005  # that a record gets
# Labels a record gets: those whose probability most exceeds how often captions name them.
MAX_LABELS = 64
DIGITS = 4
RIDGE = 2.0  # the penalty, as a fraction of each input's variance
# A linear head goes below zero: no label is more than four times less likely than on the average
# photo.
MIN_OF_AVERAGE = 1 / 4
MAX_SCORES = 2_000_000  # that calibrate the heads: more change nothing, and take longer
MIN_PHOTOS = 100  # with tags, for heads: fewer teach noise
AT_ONCE = 1024  # photos
# As many mentions as the overall rate counts for, beside each label's. What captions name differs
# much between labels; how often a source is right does not.
RECALL_SHRINK, RELIABILITY_SHRINK = 5.0, 50.0
# The fraction of what one caption names that another one names too: 0.42 on Flickr8k, 0.40 on COCO.
USUAL_RECALL = 0.4

Ids = NDArray[np.int64]


class Evidence(NamedTuple):
    """A file that `--evidence` names; `map` is as in `train --distill`."""

    path: Path
    map: Path | None = None

    @classmethod
    def parse(cls, text: str) -> "Evidence":
        """The files in the text of an option; UsageProblem for another form."""
        path, settings = scores_file("--evidence", text, FORM, "map")
        return cls(path, Path(settings["map"]) if settings else None)


class MentionedLabels(NamedTuple):
    """The photo of a record, and the labels that captions or persons name on it, if anyone did."""

    photo: str
    mentioned: Ids | None
    mentions: Ids = np.zeros(0, np.int64)  # those of each of its captions, one after the other
    n_captions: int = 0

    @classmethod
    def read(cls, record: Record, labels: LabelSystem) -> "MentionedLabels":
        """The labels of a record; RecordProblem without a photo."""
        fields = record.fields
        photo, tags = image_name(record.fields), listed(fields, "tags")
        if not is_tagged(fields):
            return cls(photo, None)
        given = set(tags).difference(guessed_tags(fields, tags))
        captions = tags_by_caption(fields) or [given]
        ids = [
            sorted({label for tag in given.intersection(names) for label in labels.ids(tag)})
            for names in (given, *captions)
        ]
        mentioned, *mentions = (np.array(label_ids, np.int64) for label_ids in ids)
        return cls(photo, mentioned, np.concatenate(mentions), len(mentions))


class TaggerHeads:
    """The probabilities of labels by one tagger's scores of photos.

    The probability of a label is the larger of the tagger's score, where it has the label, and of
    how likely a caption names it, as heads predict from all scores of the photo.
    """

    def __init__(
        self, evidence: Evidence, labels: LabelSystem, photos: Sequence[MentionedLabels]
    ) -> None:
        tagger = TaggerScores.read(evidence.path, "generate")
        classes = Classes(labels, None, read_map(evidence.map))
        self._labels_of_name = [list(classes.matching_tag(name)) for name in tagger.names]
        self._tagger = TaggerInputs(tagger, (entry.photo for entry in photos))
        self._known = np.unique(np.concatenate([[], *_mentioned(photos)]).astype(np.int64))
        sums = Sums.over(self._parts(photos), len(self._known))
        if sums is None or not len(self._known) or sums.products[:, -1, -1].sum() < FOLDS:
            raise RunProblem(f"{evidence.path}: too few photos in it have tags to learn from")
        self._lowest, self._weights = sums.base * MIN_OF_AVERAGE, sums.heads(RIDGE)
        self.average = np.full(len(labels), sums.base.min())  # probabilities (L,)
        self.average[self._known] = sums.base
        is_taught = sums.products[:, -1, -1].sum() >= MIN_PHOTOS
        self._calibration = self._calibrated(photos) if is_taught else None
        self._reliability, self._recall = np.ones(len(labels)), np.zeros(len(labels))
        if self._tagger.are_tags:
            self._reliability, self._recall = self._measure_reliability(photos, labels)

    def probabilities(self, photo: str, n_captions: int) -> NDArray[np.float32] | None:
        """The probability of each label (L,) that the captions leave out.

        None for a photo that the tagger has not scored.
        """
        inputs, is_scored = self._tagger.inputs([photo])
        if not is_scored[0]:
            return None
        result = np.zeros(len(self.average), np.float32)
        if self._calibration is not None:
            known = Photos.build(inputs, is_scored, [photo], np.zeros((2, 0), np.int64))
            scores = self._scores(known.inputs, int(known.fold[0]))[0]
            result[self._known] = sigmoid(self._calibration.log_odds(log_odds_of(scores)))
        if self._tagger.are_probabilities:
            # A label that no caption names is absent, or each of the captions left it out.
            odds = log_odds_of(self._reliability) + n_captions * np.log(1 - self._recall)
            weight = sigmoid(odds)
            for name, score in zip(*self._tagger.scores(photo), strict=True):
                labels = self._labels_of_name[name]
                result[labels] = np.maximum(result[labels], score * weight[labels])
        return result

    def _measure_reliability(
        self, photos: Sequence[MentionedLabels], labels: LabelSystem
    ) -> tuple[Floats, Floats]:
        """How likely a label (L,) is right where a source names it; how often captions repeat it.

        Where it is right, captions name it as often as they repeat each other: of the n captions
        of a record c name the label,

            recall      = (sum c (c - 1) + 5 r) / (sum c (n - 1) + 5)    over all records
            reliability = (sum c + 50 R) / (sum n recall + 50)           where the source names it

        with the rates r and R of all labels together. Where no record has two captions, they are
        taken to repeat each other as usual, and all labels to be equally reliable.
        """
        agreed, expected, again, pairs = np.zeros((4, len(labels)))
        for entry in photos:
            mentioned_by = np.bincount(entry.mentions, minlength=len(labels))
            again += mentioned_by * (mentioned_by - 1)
            pairs += mentioned_by * (entry.n_captions - 1)
            names = self._tagger.scores(entry.photo)[0]
            given = sorted({label for name in names for label in self._labels_of_name[name]})
            agreed[given] += mentioned_by[given]
            expected[given] += entry.n_captions
        if not pairs.any():
            like = agreed if agreed.any() else expected
            again = USUAL_RECALL * like * expected.sum() / max(like.sum(), 1.0)
            pairs = expected
        recall = np.minimum(_rates(again, pairs, RECALL_SHRINK), MAX_P)
        reliability = _rates(agreed, expected * recall, RELIABILITY_SHRINK)
        return np.minimum(reliability, MAX_P), recall

    def _scores(self, inputs: Floats, fold: int) -> Floats:
        """The uncalibrated predictions (n, K) of the other folds' heads for photos (n, F)."""
        return np.clip(inputs @ self._weights[fold].T, self._lowest, MAX_P)

    def _parts(self, photos: Sequence[MentionedLabels]) -> Iterator[Photos]:
        """The photos with tags, in parts, with the places of their labels."""
        tagged = (entry for entry in photos if entry.mentioned is not None)
        for part in chunks(tagged, AT_ONCE):
            names = [entry.photo for entry in part]
            mentioned = list(_mentioned(part))
            labels = np.searchsorted(self._known, np.concatenate(mentioned))
            places = np.repeat(np.arange(len(part)), list(map(len, mentioned)))
            yield Photos.build(*self._tagger.inputs(names), names, np.stack([labels, places]))

    def _calibrated(self, photos: Sequence[MentionedLabels]) -> Calibration:
        """The calibration of the heads' predictions, on photos that they were not fitted to."""
        tagged = [entry for entry in photos if entry.mentioned is not None]
        sampled = tagged[:: -(-len(tagged) * len(self._known) // MAX_SCORES)]
        scores, right = [], []
        for inputs, folds, (labels, places) in self._parts(sampled):
            is_mentioned = np.zeros((len(folds), len(self._known)), bool)
            is_mentioned[places, labels] = True
            for fold in range(FOLDS):
                scores.append(self._scores(inputs[folds == fold], fold))
                right.append(is_mentioned[folds == fold])
        mentioned = np.concatenate(right)
        every = np.ones(mentioned.shape, bool)
        return calibrate(Judged(np.concatenate(scores), mentioned, every), every[0])


class LabelProbabilities:
    """Adds `chances` to records: the probabilities of labels that their tags leave out.

    Of several taggers that have scored a photo the largest probability of a label counts.
    """

    def __init__(
        self, evidence: Iterable[Evidence], labels: LabelSystem, inputs: Iterable[Item]
    ) -> None:
        records = (item for item in inputs if isinstance(item, Record))
        read = (attempt(MentionedLabels.read, record, labels) for record in records)
        # The run reports the records with problems.
        photos = [entry for entry in read if isinstance(entry, MentionedLabels)]
        self.labels = labels
        self.heads = [TaggerHeads(file, labels, photos) for file in evidence]

    def by_tag(self, photo: str, fields: JsonObject) -> dict[str, float]:
        """The probabilities by tag of a record with this photo, the largest first.

        None is of a tag that the record has, or that follows from one, or that is barred.
        """
        n = max(len(tags_by_caption(fields)), 1)
        found = [heads.probabilities(photo, n) for heads in self.heads]
        scored = [probabilities for probabilities in found if probabilities is not None]
        if not scored:
            return {}
        probabilities = np.max(scored, axis=0)
        tags = listed(fields, "tags")
        # A record with a boy has a person for certain.
        probabilities[list(implied_ids(tags, self.labels))] = 0
        for tag in (*tags, *barred_tags(fields)):
            probabilities[list(self.labels.ids(tag))] = 0
        is_enough = probabilities >= MIN_PROBABILITY
        lift = np.where(is_enough, probabilities / self.heads[0].average, 0)
        likeliest = np.argsort(-lift, kind="stable")[: min(MAX_LABELS, np.count_nonzero(lift))]
        ranked = likeliest[np.argsort(-probabilities[likeliest], kind="stable")].tolist()
        return {self.labels[i].tag: round(float(probabilities[i]), DIGITS) for i in ranked}

    def add(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome of a stage with `chances`: for `records.stream.watched`."""
        if not isinstance(outcome, RecordProblem):
            outcome["chances"] = self.by_tag(image_name(record.fields), outcome)
        return outcome


def _rates(hits: Floats, counts: Floats, shrink: float) -> Floats:
    """Each label's rate (L,), shrunk towards the overall rate, which is 1 without any counts."""
    overall = hits.sum() / counts.sum() if counts.any() else 1.0
    return (hits + shrink * overall) / (counts + shrink)


def _mentioned(photos: Iterable[MentionedLabels]) -> Iterator[Ids]:
    return (entry.mentioned for entry in photos if entry.mentioned is not None)
