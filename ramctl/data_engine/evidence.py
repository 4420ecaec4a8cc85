"""How probable each tag is: the model's score of the photo, corrected by evidence from outside.

Heads (`heads.py`) say what other records make of a photo. Their inputs are the model's features of
the whole photo, or another tagger's scores of it (`--evidence scores:FILE`): they learn what that
tagger's words mean for each label, so that they need not be the same words. All evidence is added
as log-odds.
n photos of a shard, F inputs with a constant one, L labels that have regions, R regions, one for
each tag of each photo.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.calibration import Calibration, log_odds_of, sigmoid
from ramctl.data_engine.heads import FOLDS, HIGHEST, LOWEST, Photos, Sums, Witness
from ramctl.data_engine.region_store import RegionIndex, Shard, source_bits
from ramctl.records.record import MODELS, Item, Record, image_name
from ramctl.tagger_scores import Photo, TaggerScores

# The kinds of evidence, each a bit; part of the work folder's format.
OUTLIER, NOT_PREDICTED, OUT_OF_FOLD, SCORES = KINDS = 1, 2, 4, 8
NAMES = dict(zip(KINDS, ("outlier", "not-predicted", "out-of-fold", "scores"), strict=True))
# Both ask the same features of the same model: where one is wrong, the other mostly is too.
SAME_MODEL = NOT_PREDICTED | OUT_OF_FOLD
# Of being right: below it a tag goes. Of 276 tags that `generate --precision 0.6` added, looked at
# without knowing their estimate, 42 are below it: 21 wrong, 10 right, 11 doubtful; from there to
# 0.25 there are 11 wrong and 18 right.
MIN_PROBABILITY = 0.2
# Of the evidence beside the model's score, over the root of the number of its kinds: they all look
# at the same photo. On tags that `generate` added (scripts/reproduce/evidence.py), 0.5 and 1 rank
# them as well within 0.01 of AUC.
WEIGHT = 0.7
SHRINK = 5  # regions whose mean is that of all tags, beside a tag's own
# A caption's word: 3,000 to 1, and a second one's as much again. Captions rarely name what is not
# there. With 20 to 1, of 24 tags that one caption names and all evidence together outweighed,
# looked at, 13 are in the picture: 4 of the 12 that seemed least likely, 9 of the others.
NAMED = 8.0
RIDGE = 0.1  # of each input's variance
# A head is believed if the photos that its label is named on get this many times the label's odds.
LEAST_LIFT = 2.0
Floats = NDArray[np.float64]
# A shard's photos as inputs (n, F - 1), and which of them are known (n,).
Inputs = Callable[[int, Shard], tuple[NDArray[Any], NDArray[np.bool_]]]


def reason(bits: int) -> str:
    """The kinds of evidence against a tag, joined by `+`; empty where it stays."""
    return "+".join(NAMES[kind] for kind in KINDS if bits & kind)


def independent(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many kinds of evidence there are among some bits that do not repeat each other."""
    others = np.bitwise_count(bits & ~np.uint8(SAME_MODEL)).astype(np.int64)
    return others + ((bits & SAME_MODEL) > 0)


def is_named(sources: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether tags with these bits of sources come from a caption or a person, not from a model.

    Records that do not tell their tags' sources had them from someone.
    """
    return (sources == 0) | (sources & ~np.uint8(source_bits(MODELS)) > 0)


class Estimate(NamedTuple):
    """What is estimated of each region's tag (R,)."""

    probability: NDArray[np.float32]  # of being right
    against: NDArray[np.uint8]  # the kinds of evidence that speak against it, as bits


def score_log_odds(
    scores: NDArray[np.float32], labels: NDArray[np.uint32], calibration: Calibration | None
) -> Floats:
    """What the model's scores of photos say of labels; as they stand where it is not calibrated."""
    log_odds = log_odds_of(scores.astype(np.float64))
    if calibration is None:
        return log_odds
    of_right = calibration.log_odds(log_odds, labels)
    # Without evidence only what holds of all labels is known.
    of_any = calibration.slope * log_odds + calibration.intercept
    return np.where(np.isnan(of_right), of_any, of_right)


def estimate(
    of_score: Floats,
    labels: NDArray[np.uint32],
    sources: NDArray[np.uint8],
    evidence: Sequence[tuple[int, NDArray[np.float32]]],
) -> Estimate:
    """The estimate for regions with the log-odds of their scores, labels and bits of sources.

    Each kind of `evidence` has log-odds (R,), which count by how much they are below or above those
    of other regions of the tag that were named, or not named, as this one; NaN counts nothing.
    """
    named = is_named(sources)
    weight = WEIGHT / max(len(evidence), 1) ** 0.5
    parts = {NOT_PREDICTED: of_score}
    for kind, log_odds in evidence:
        change = weight * (log_odds - _usual(log_odds, labels, named))
        parts[kind] = parts.get(kind, 0.0) + np.nan_to_num(change)
    named_twice = (sources & np.uint8(source_bits((), twice=True))) > 0
    words = np.where(named, NAMED, 0.0) + np.where(named_twice, NAMED, 0.0)
    against = np.zeros(len(of_score), np.uint8)
    for kind, part in parts.items():
        against[part < 0] |= kind
    return Estimate(sigmoid(sum(parts.values()) + words).astype(np.float32), against)


def _usual(
    log_odds: NDArray[np.float32], labels: NDArray[np.uint32], named: NDArray[np.bool_]
) -> Floats:
    """The mean (R,) of the log-odds of a region's tag, drawn towards that of all tags."""
    usual = np.zeros(len(log_odds))
    for group in (named, ~named):
        known = group & ~np.isnan(log_odds)
        if not known.any():
            continue
        n_labels = int(labels.max()) + 1
        number = np.bincount(labels[known], minlength=n_labels)
        sums = np.bincount(labels[known], log_odds[known], n_labels)
        means = (sums + SHRINK * log_odds[known].mean(dtype=np.float64)) / (number + SHRINK)
        usual[group] = means[labels[group]]
    return usual


class _Part(NamedTuple):
    """One shard."""

    photos: Photos
    place: NDArray[np.int64]  # of each region's photo
    column: NDArray[np.int64]  # of its label, among L
    named: NDArray[np.bool_]  # by a caption or a person


@dataclass(frozen=True)
class OutOfFold:
    """Evidence about the regions of a work folder, by heads fitted to other photos."""

    index: RegionIndex

    def estimate(self, calibration: Calibration | None, score_files: Iterable[Path]) -> Estimate:
        """How probable the tag of each region is."""
        regions = self.index.columns()
        of_score = score_log_odds(regions["photo_score"], regions["label"], calibration)
        return estimate(of_score, regions["label"], regions["sources"], self.kinds(score_files))

    def kinds(self, score_files: Iterable[Path]) -> list[tuple[int, NDArray[np.float32]]]:
        """All evidence but the model's score: kinds with log-odds (R,), NaN where unknown."""
        scores = [(SCORES, self.by_scores(path)) for path in score_files]
        return [(OUT_OF_FOLD, self.by_features()), *scores]

    def by_features(self) -> NDArray[np.float32]:
        """What the model's features of the photos say, as `_ask`."""
        return self._ask(lambda _, shard: (shard.photos, np.asarray(shard.photos.any(axis=1))))

    def by_scores(self, path: Path) -> NDArray[np.float32]:
        """What another tagger's scores of the photos say, as `_ask`.

        RunProblem naming the first bad line of the file.
        """
        photos = (photo for shard in self._photos for photo in shard if photo)
        witness = Witness(TaggerScores.read(path, "clean"), photos)
        return self._ask(lambda number, _: witness.inputs(self._photos[number]))

    def _ask(self, inputs: Inputs) -> NDArray[np.float32]:
        """The log-odds (R,) at which a caption of the photo would name each region's tag.

        NaN where that cannot be told: of photos without inputs, and of labels that the heads do
        not recognise on the photos that they are named on. Reads the inputs twice.
        """
        labels = np.array(sorted(self.index.counts()), np.int64)
        sums = Sums.of((part.photos for part in self._parts(inputs, labels)), len(labels))
        if sums is None:
            return np.full(int(self.index.offsets[-1]), np.nan, np.float32)
        weights = sums.heads(RIDGE)
        parts = []
        named = np.zeros((2, len(labels)))  # of named regions' probabilities: sum, number
        for part in self._parts(inputs, labels):
            probability = np.full(len(part.place), np.nan)
            for fold in range(FOLDS):
                rows = np.flatnonzero(part.photos.fold[part.place] == fold)
                if not len(rows):
                    continue
                heads = weights[fold][part.column[rows]]  # (rows, F)
                x = part.photos.inputs[part.place[rows]]
                probability[rows] = np.einsum("rf,rf->r", x, heads)
            # A line goes below zero: but no tag is less likely than on the average photo.
            probability = np.clip(probability, sums.base[part.column], HIGHEST)
            known = part.named & ~np.isnan(probability)
            for row, weight in enumerate((probability[known], None)):
                named[row] += np.bincount(part.column[known], weight, len(labels))
            parts.append((part.column, probability))
        mean = np.clip(named[0] / np.maximum(named[1], 1), LOWEST, HIGHEST)
        can_tell = _odds(mean) >= LEAST_LIFT * _odds(sums.base)
        log_odds = [np.where(can_tell[c], np.log(_odds(p)), np.nan) for c, p in parts]
        return np.concatenate(log_odds).astype(np.float32)

    def _parts(self, inputs: Inputs, labels: NDArray[np.int64]) -> Iterator[_Part]:
        for number, shard in enumerate(self.index.shards):
            place = shard.regions["input"].astype(np.int64)
            column = np.searchsorted(labels, shard.regions["label"])
            named = is_named(shard.regions["sources"])
            pairs = np.stack([column[named], place[named]])
            photos = Photos.of(*inputs(number, shard), self._photos[number], pairs)
            yield _Part(photos, place, column, named)

    @cached_property
    def _photos(self) -> list[list[Photo | None]]:
        """By shard the photo of each input; None for a reject."""

        def photo(item: Item) -> Photo | None:
            return Photo(image_name(item.fields), item.base) if isinstance(item, Record) else None

        return [list(map(photo, shard.inputs())) for shard in self.index.shards]


def _odds(probability: Floats) -> Floats:
    return probability / (1 - probability)
