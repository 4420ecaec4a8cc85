"""The probability that a tag is right: the model's score, corrected by evidence from outside.

A caption's tag is judged by its lift: how much likelier the photo makes it than any photo does.
Linear heads (`heads.py`) predict each label from the model's features of the whole photo, or from
another tagger's scores of it (`--evidence FILE`); they learn what that tagger's words mean
for each label, so the words need not be the same. All evidence is added as log-odds.
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

from ramctl.checkpoints.bundle import Bundle, embedded_bundle, known_labels
from ramctl.data_engine.heads import FOLDS, MAX_P, MIN_P, Photos, Sums, TaggerInputs
from ramctl.data_engine.region_store import RegionIndex, Shard, source_bits
from ramctl.decide.calibration import Calibration
from ramctl.decide.thresholds import thresholds_of
from ramctl.engine.log_odds import Floats, log_odds_of, sigmoid
from ramctl.labels import LabelSystem
from ramctl.records.record import HUMAN, MODELS, PARSED, Record, image_name
from ramctl.tagger_scores import TaggerScores

# The kinds of evidence, each a bit; part of the work folder's format.
OUTLIER, NOT_PREDICTED, OUT_OF_FOLD, SCORES, IMPROBABLE = KINDS = 1, 2, 4, 8, 16
_WORDS = ("outlier", "not-predicted", "out-of-fold", "scores", "improbable")
NAMES = dict(zip(KINDS, _WORDS, strict=True))
# A less probable tag is removed.
MIN_PROBABILITY = 0.2
# The weight of the evidence beside the model's score, over the root of the number of its kinds,
# which all look at the same photo (0.5 and 1 rank tags as well).
WEIGHT = 0.7
SHRINK = 5  # as many regions as the mean of all tags counts for, beside each tag's
# The log-odds of what a caption or person names and the model cannot judge.
MENTIONED = 8.0
# The log-odds of a thing that one caption names, by its lift: a logistic curve, fitted where a
# sixth of the things are wrong (scripts/reproduce/README.md).
NAMED, LIFT_SLOPE = 1.0, 1.25
# The log-odds of mini's things and scenes on photos of all kinds, else NaN (scripts/mini/rates.py).
RATES = Path(__file__).with_name("label_rates.npy")
MIN_PHOTOS = 10_000  # for heads on features: fewer make right tags improbable
RIDGE = 0.1  # the penalty, as a fraction of each input's variance
# A head is used if it raises the odds of its label this many times on photos that mention it.
MIN_LIFT = 2.0
# A shard's photos as inputs (n, F - 1), and which of them are known (n,).
Inputs = Callable[[int, Shard], tuple[NDArray[Any], NDArray[np.bool_]]]


def implied_ids(tags: Iterable[str], labels: LabelSystem) -> set[int]:
    """The ids of what tags imply: a photo of a boy shows a child and a person."""
    found: set[int] = set()
    for tag in tags:
        for system in (labels, known_labels()):
            if parents := [parent for i in system.ids(tag) for parent in system[i].parents]:
                found.update(*map(labels.ids, parents))
                break
    return found


def reason(bits: int) -> str:
    """The kinds of evidence against a tag, joined by `+`; empty where it stays."""
    return "+".join(NAMES[kind] for kind in KINDS if bits & kind)


def is_mentioned(sources: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether tags with these bits of sources come from a caption or a person, not from a model.

    Tags without a source count as a person's.
    """
    return (sources == 0) | (sources & ~np.uint8(source_bits(MODELS)) > 0)


def is_of_caption(sources: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether one caption, and no person, names the tags with these bits of sources."""
    others = source_bits((PARSED, HUMAN), twice=True)
    return (sources & np.uint8(others)) == source_bits((PARSED,))


class Estimate(NamedTuple):
    """An estimate for the tag of each region (R,)."""

    probability: NDArray[np.float32]  # of being right
    against: NDArray[np.uint8]  # the kinds of evidence against it, as bits


def score_log_odds(
    scores: NDArray[np.float32], labels: NDArray[np.uint32], calibration: Calibration | None
) -> Floats:
    """The calibrated log-odds of the model's scores (R,); uncalibrated without a calibration."""
    log_odds = log_odds_of(scores.astype(np.float64))
    if calibration is None:
        return log_odds
    calibrated = calibration.log_odds(log_odds, labels)
    # Labels without a calibration of their own use the shared one.
    shared = calibration.slope * log_odds + calibration.intercept
    return np.where(np.isnan(calibrated), shared, calibrated)


def label_rates(calibration: Calibration | None) -> Floats | None:
    """RATES (L,) for the embedded bundle's calibration, which `finetune` keeps; else None."""
    rates = np.load(RATES).astype(np.float64)
    usual = Calibration.from_bundle(Bundle.open(embedded_bundle()))
    if calibration is None or not np.array_equal(calibration.slopes[: len(rates)], usual.slopes):
        return None
    return np.append(rates, np.full(len(calibration.slopes) - len(rates), np.nan))


def estimate(
    model_log_odds: Floats,
    labels: NDArray[np.uint32],
    sources: NDArray[np.uint8],
    evidence: Sequence[tuple[int, NDArray[np.float32]]],
    rates: Floats | None = None,
) -> Estimate:
    """The estimate for regions, given the model's log-odds, the labels and the bits of sources.

    Each kind of `evidence` has log-odds (R,), NaN where unknown. They count relative to their mean
    over the tag's regions of the same origin: mentioned by a caption or person, or not.
    """
    mentioned = is_mentioned(sources)
    weight = WEIGHT / max(len(evidence), 1) ** 0.5
    lift = np.full(len(labels), np.nan) if rates is None else model_log_odds - rates[labels]
    is_judged = np.isfinite(lift) & is_of_caption(sources)
    by_lift = np.where(is_judged, NAMED + LIFT_SLOPE * lift, MENTIONED)
    parts = {NOT_PREDICTED: np.where(mentioned, by_lift, model_log_odds)}
    for kind, found in evidence:
        change = weight * (found - _mean_log_odds(found, labels, mentioned))
        # Heads that learnt from the same captions find no more of their errors.
        change[np.isnan(change) | (mentioned & (kind == OUT_OF_FOLD))] = 0.0
        parts[kind] = parts.get(kind, 0.0) + change
    against = np.zeros(len(labels), np.uint8)
    for kind, part in parts.items():
        against[part < 0] |= kind
    return Estimate(sigmoid(np.sum(list(parts.values()), axis=0)).astype(np.float32), against)


def _mean_log_odds(
    log_odds: NDArray[np.float32], labels: NDArray[np.uint32], mentioned: NDArray[np.bool_]
) -> Floats:
    """The mean log-odds of each region's tag (R,), shrunk towards the mean of all tags."""
    mean = np.zeros(len(log_odds))
    for group in (mentioned, ~mentioned):
        known = group & ~np.isnan(log_odds)
        if not known.any():
            continue
        n_labels = int(labels.max()) + 1
        number = np.bincount(labels[known], minlength=n_labels)
        sums = np.bincount(labels[known], log_odds[known], n_labels)
        by_label = (sums + SHRINK * log_odds[known].mean(dtype=np.float64)) / (number + SHRINK)
        mean[group] = by_label[labels[group]]
    return mean


class _Part(NamedTuple):
    """One shard."""

    photos: Photos
    place: NDArray[np.int64]  # of each region's photo
    column: NDArray[np.int64]  # of its label, among L
    mentioned: NDArray[np.bool_]  # by a caption or a person


@dataclass(frozen=True)
class OutOfFold:
    """Evidence about the regions of a work folder, by heads fitted to other photos."""

    index: RegionIndex

    def estimate(self, bundle: Bundle, score_files: Iterable[Path]) -> Estimate:
        """The probability of the tag of each region, whose scores are those of a bundle's model."""
        regions, calibration = self.index.columns(), Calibration.if_known(bundle)
        log_odds = score_log_odds(regions["photo_score"], regions["label"], calibration)
        kinds, rates = self.kinds(score_files), label_rates(calibration)
        found = estimate(log_odds, regions["label"], regions["sources"], kinds, rates)
        # The model gives some tags that it takes for improbable: captions hardly name them.
        is_given = regions["photo_score"] > np.array(thresholds_of(bundle))[regions["label"]]
        found.against[is_given & (found.against & NOT_PREDICTED > 0)] ^= NOT_PREDICTED | IMPROBABLE
        return found

    def kinds(self, score_files: Iterable[Path]) -> list[tuple[int, NDArray[np.float32]]]:
        """All evidence but the model's score: kinds with log-odds (R,), NaN where unknown."""
        scores = [(SCORES, self.by_scores(path)) for path in score_files]
        is_enough = sum(shard.facts["inputs"] for shard in self.index.shards) >= MIN_PHOTOS
        return [(OUT_OF_FOLD, self.by_features()), *scores] if is_enough else scores

    def by_features(self) -> NDArray[np.float32]:
        """The log-odds by the model's features of the photos, as `_predict`."""
        return self._predict(lambda _, shard: (shard.photos, np.asarray(shard.photos.any(axis=1))))

    def by_scores(self, path: Path) -> NDArray[np.float32]:
        """The log-odds by another tagger's scores of the photos, as `_predict`.

        RunProblem naming the first bad line of the file.
        """
        photos = (photo for shard in self._photos for photo in shard if photo)
        tagger = TaggerInputs(TaggerScores.read(path, "clean"), photos)
        return self._predict(lambda number, _: tagger.inputs(self._photos[number]))

    def _predict(self, inputs: Inputs) -> NDArray[np.float32]:
        """The log-odds (R,) that a caption of the photo names each region's tag.

        NaN for photos without inputs, and for labels that the heads do not recognise on the photos
        that they are mentioned on. Reads the inputs twice.
        """
        labels = np.array(sorted(self.index.counts()), np.int64)
        sums = Sums.over((part.photos for part in self._parts(inputs, labels)), len(labels))
        if sums is None:
            return np.full(int(self.index.offsets[-1]), np.nan, np.float32)
        weights = sums.heads(RIDGE)
        parts = []
        mentioned = np.zeros((2, len(labels)))  # of mentioned regions' probabilities: sum, number
        for part in self._parts(inputs, labels):
            probability = np.full(len(part.place), np.nan)
            for fold in range(FOLDS):
                rows = np.flatnonzero(part.photos.fold[part.place] == fold)
                if not len(rows):
                    continue
                heads = weights[fold][part.column[rows]]  # (rows, F)
                x = part.photos.inputs[part.place[rows]]
                probability[rows] = np.einsum("rf,rf->r", x, heads)
            # A linear head may go below zero; no tag is less likely than on the average photo.
            probability = np.clip(probability, sums.base[part.column], MAX_P)
            known = part.mentioned & ~np.isnan(probability)
            for row, weight in enumerate((probability[known], None)):
                mentioned[row] += np.bincount(part.column[known], weight, len(labels))
            parts.append((part.column, probability))
        mean = np.clip(mentioned[0] / np.maximum(mentioned[1], 1), MIN_P, MAX_P)
        recognised = _odds(mean) >= MIN_LIFT * _odds(sums.base)
        log_odds = [np.where(recognised[c], np.log(_odds(p)), np.nan) for c, p in parts]
        return np.concatenate(log_odds).astype(np.float32)

    def _parts(self, inputs: Inputs, labels: NDArray[np.int64]) -> Iterator[_Part]:
        for number, shard in enumerate(self.index.shards):
            place = shard.regions["input"].astype(np.int64)
            column = np.searchsorted(labels, shard.regions["label"])
            mentioned = is_mentioned(shard.regions["sources"])
            pairs = np.stack([column[mentioned], place[mentioned]])
            photos = Photos.build(*inputs(number, shard), self._photos[number], pairs)
            yield _Part(photos, place, column, mentioned)

    @cached_property
    def _photos(self) -> list[list[str | None]]:
        """By shard the photo of each input; None for a reject."""
        return [
            [
                image_name(item.fields) if isinstance(item, Record) else None
                for item in shard.inputs()
            ]
            for shard in self.index.shards
        ]


def _odds(probability: Floats) -> Floats:
    return probability / (1 - probability)
