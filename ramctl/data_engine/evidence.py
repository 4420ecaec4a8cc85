"""Evidence about a photo's tags from outside the model's own answer to them.

For every label a linear head is fitted to the photos that a caption or a person named it on, and
asked about photos that it was not fitted to: out-of-fold predictions, as in confident learning
(Northcutt et al. 2021, arXiv 1911.00068). Its inputs are the model's features of the whole photo,
or what another tagger said of it (`--evidence scores:FILE`): the head learns what that tagger's
words mean for each label, so that they need not be the same words.
N photos, F inputs with a constant one, L labels that have regions, R regions.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.region_store import TWICE, RegionIndex, Shard, source_bits
from ramctl.evaluation.matching import Photo
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.records.record import BY_CAPTION, BY_TAG, Record, image_name

FOLDS = 5
RIDGE = 0.1  # of each input's variance
# A head is believed if the photos that its label is named on get this many times the label's odds.
LEAST_LIFT = 2.0
LEAST_CHANCE, MOST_CHANCE = 1e-6, 0.99
Floats = NDArray[np.float64]
# A shard's photos as inputs (n, F - 1), and which of them are known (n,).
Inputs = Callable[[int, Shard], tuple[NDArray[Any], NDArray[np.bool_]]]


class _Part(NamedTuple):
    """One shard."""

    inputs: Floats  # (n, F)
    fold: NDArray[np.uint8]  # (n,); FOLDS for a photo that is not known
    place: NDArray[np.int64]  # of each region's photo
    column: NDArray[np.int64]  # of its label, among L
    named: NDArray[np.bool_]  # by a caption or a person


def is_named(sources: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether tags with these bits of sources come from a caption or a person, not from a model.

    Records that do not tell their tags' sources had them from someone.
    """
    generated = np.uint8(source_bits((BY_CAPTION, BY_TAG)))
    return (sources == 0) | (sources & ~generated > 0)


def is_named_twice(sources: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether two captions or more name a tag with these bits of sources."""
    return (sources & np.uint8(source_bits((TWICE,)))) > 0


@dataclass(frozen=True)
class Witnesses:
    """Asks heads about the regions of a work folder."""

    index: RegionIndex

    def by_features(self) -> NDArray[np.float32]:
        """What the model's features of the photos say, as `ask`."""

        def inputs(number: int, shard: Shard) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            features = np.asarray(shard.photos)
            return features, np.asarray(features.any(axis=1))

        return self.ask(inputs)

    def by_scores(self, path: Path) -> NDArray[np.float32]:
        """What another tagger's scores of the photos say, as `ask`.

        RunProblem naming the first bad line of the file.
        """
        told = TaggerScores.read(path, "clean")
        # A photo that several records have meets its scores once.
        distinct = list(dict.fromkeys(photo for own in self._photos for photo in own if photo))
        row_of = dict(zip(distinct, told.rows_of(distinct).tolist(), strict=True))

        def inputs(number: int, shard: Shard) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            rows = [row_of[photo] if photo else -1 for photo in self._photos[number]]
            filled = np.zeros((len(rows), len(told.names)))
            for place, row in enumerate(rows):
                if row >= 0:
                    names, scores = told.scores[row]
                    filled[place, names] = scores
            return filled, np.array(rows) >= 0

        return self.ask(inputs)

    def ask(self, inputs: Inputs) -> NDArray[np.float32]:
        """The log-odds (R,) at which a caption of the photo would name each region's tag.

        NaN where that cannot be told: of photos without inputs, and of labels that the heads do
        not recognise on the photos that they are named on. Reads the inputs twice.
        """
        labels = np.array(sorted(self.index.counts()), np.int64)
        sums = _Sums.of(self._parts(inputs, labels), len(labels))
        if sums is None:
            return np.full(int(self.index.offsets[-1]), np.nan, np.float32)
        weights = sums.heads()
        parts, told = [], np.zeros((2, len(labels)))  # chances of named regions: their sum, number
        for part in self._parts(inputs, labels):
            chance = np.full(len(part.place), np.nan)
            for fold in range(FOLDS):
                own = np.flatnonzero(part.fold[part.place] == fold)
                if not len(own):
                    continue
                heads = weights[fold][part.column[own]]  # (own, F)
                chance[own] = np.einsum("rf,rf->r", part.inputs[part.place[own]], heads)
            # A line goes below zero: but no tag is less likely than on the average photo.
            chance = np.clip(chance, sums.base[part.column], MOST_CHANCE)
            is_told = part.named & ~np.isnan(chance)
            for row, weight in enumerate((chance[is_told], None)):
                told[row] += np.bincount(part.column[is_told], weight, len(labels))
            parts.append((part.column, chance))
        mean = np.clip(told[0] / np.maximum(told[1], 1), LEAST_CHANCE, MOST_CHANCE)
        can_tell = _odds(mean) >= LEAST_LIFT * _odds(sums.base)
        found = [np.where(can_tell[c], np.log(_odds(chance)), np.nan) for c, chance in parts]
        return np.concatenate(found).astype(np.float32)

    def _parts(self, inputs: Inputs, labels: NDArray[np.int64]) -> Iterator[_Part]:
        for number, shard in enumerate(self.index.shards):
            x, known = inputs(number, shard)
            folds = [_fold(photo) if photo else FOLDS for photo in self._photos[number]]
            regions = shard.regions
            yield _Part(
                np.concatenate([x, np.ones((len(x), 1))], 1, dtype=np.float64),
                np.where(known, np.array(folds, np.uint8), FOLDS).astype(np.uint8),
                regions["input"].astype(np.int64),
                np.searchsorted(labels, regions["label"]),
                is_named(regions["sources"]),
            )

    @cached_property
    def _photos(self) -> list[list[Photo | None]]:
        """By shard the photo of each input; None for a reject."""
        return [
            [
                Photo(image_name(item.fields), item.base) if isinstance(item, Record) else None
                for item in shard.inputs()
            ]
            for shard in self.index.shards
        ]


@dataclass
class _Sums:
    """What least squares needs, of each fold: products of inputs, and inputs of named photos."""

    products: Floats  # (FOLDS, F, F)
    of_named: Floats  # (FOLDS, L, F)

    @classmethod
    def of(cls, parts: Iterable[_Part], n_labels: int) -> "_Sums | None":
        """The sums over all parts; None where no photo is known."""
        from scipy.sparse import csr_matrix

        sums = None
        for part in parts:
            for fold in range(FOLDS):
                photos = np.flatnonzero(part.fold == fold)
                if not len(photos):
                    continue
                if sums is None:
                    n_inputs = part.inputs.shape[1]
                    shape = (FOLDS, n_labels, n_inputs)
                    sums = cls(np.zeros((FOLDS, n_inputs, n_inputs)), np.zeros(shape))
                own = np.flatnonzero(part.named & (part.fold[part.place] == fold))
                pairs = np.unique(np.stack([part.column[own], part.place[own]]), axis=1)
                x = part.inputs[photos]
                sums.products[fold] += x.T @ x
                is_on = csr_matrix(
                    (np.ones(pairs.shape[1]), tuple(pairs)), (n_labels, len(part.inputs))
                )
                sums.of_named[fold] += is_on @ part.inputs
        return sums

    @property
    def base(self) -> Floats:
        """The share of the photos (L,) that each label is named on."""
        share = self.of_named[..., -1].sum(0) / self.products[..., -1, -1].sum()
        return np.clip(share, LEAST_CHANCE, MOST_CHANCE)

    def heads(self) -> list[Floats]:
        """For each fold the heads (L, F) that the other folds give: ridge regression."""
        heads = []
        for fold in range(FOLDS):
            products = self.products.sum(0) - self.products[fold]
            of_named = self.of_named.sum(0) - self.of_named[fold]
            n = max(products[-1, -1], 1.0)
            variance = products.diagonal() - products[-1] ** 2 / n
            # The constant goes free; one that never varies needs a penalty all the same.
            penalty = np.where(np.arange(len(products)) < len(products) - 1, RIDGE, 0) * variance
            products[np.diag_indices_from(products)] += penalty + 1e-6 * n
            heads.append(np.linalg.solve(products, of_named.T).T)
        return heads


def _fold(photo: Photo) -> int:
    """The fold of a photo, whichever record it is in."""
    name = photo.base_name().encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=8).digest()[0] % FOLDS


def _odds(chance: Floats) -> Floats:
    return chance / (1 - chance)
