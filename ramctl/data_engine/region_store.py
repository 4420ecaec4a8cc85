"""The regions of all tags, and the records that they are in: kept until all are found.

Numbers a tag are in memory, features and records on disk. R regions, F numbers a feature.
"""

import pickle
from collections.abc import Iterator
from functools import cached_property
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.records.record import Item

REGION = np.dtype(
    [
        ("input", "<u4"),  # the number of its record
        ("place", "<u2"),  # of the tag in the record's tags
        ("label", "<u4"),
        ("is_human", "?"),  # these as in `tags.RequestedTag`
        ("is_mentioned", "?"),
        ("is_of_caption", "?"),
        ("fold", "u1"),
        ("box", "<f4", 4),
        ("log_odds", "<f4"),  # calibrated
    ]
)
RegionArray = NDArray[Any]  # (R,) of REGION
Rows = NDArray[np.int64]
Features = NDArray[np.float16]
IMPROBABLE, OUTLIER, NOT_PREDICTED = "improbable", "outlier", "not-predicted"


class Decisions(NamedTuple):
    """A rule's decision on each region."""

    reasons: NDArray[np.str_]  # (R,) why it loses its tag; "": it keeps it
    distance: NDArray[np.float32]  # (R,) to its centre; NaN without one


class RegionStore:
    """Filled input by input; then the regions are arrays, in input order.

    The files have no names, so that a stopped run leaves none.
    """

    def __init__(self) -> None:
        self.n_inputs = 0
        self._regions = [np.zeros(0, REGION)]
        self._inputs, self._features = TemporaryFile(), TemporaryFile()  # noqa: SIM115

    def add(self, item: Item, regions: RegionArray, features: Features) -> None:
        """Add an input with its regions and their features (R, F)."""
        regions["input"] = self.n_inputs
        self._regions.append(regions)
        pickle.dump(item, self._inputs)
        self._features.write(features.tobytes())
        self.n_inputs += 1

    def inputs(self) -> Iterator[Item]:
        """All records and rejects, in input order."""
        self._inputs.seek(0)
        return (pickle.load(self._inputs) for _ in range(self.n_inputs))

    @cached_property
    def regions(self) -> RegionArray:
        """The regions (R,), `REGION`."""
        return np.concatenate(self._regions)

    @cached_property
    def features(self) -> Features:
        """The features of the regions (R, F), of unit length, mapped from the disk."""
        self._features.flush()
        if not len(self.regions):  # an empty file cannot be mapped
            return np.zeros((0, 1), np.float16)
        return np.memmap(self._features, np.float16, "r").reshape(len(self.regions), -1)

    @cached_property
    def _firsts(self) -> Rows:
        return np.searchsorted(self.regions["input"], np.arange(self.n_inputs + 1))

    def rows_of(self, number: int) -> slice:
        """The rows of the regions of one input."""
        return slice(*self._firsts[number : number + 2].tolist())

    def rows_by_label(self) -> list[Rows]:
        """The rows of each label that has regions."""
        labels = self.regions["label"]
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        return np.split(order, starts)[1:]
