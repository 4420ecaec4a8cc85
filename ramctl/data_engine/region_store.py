"""The regions of all tags, and the records that they are in: on disk until all are found.

The files have no names, so that a stopped run leaves none. N inputs, P photos with regions,
R regions, F numbers a feature.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ramctl.records.files import scratch_file
from ramctl.records.jsonl import spool_line, unspool
from ramctl.records.record import Item

REGION = np.dtype(
    [
        ("input", "<u4"),  # the number of its record
        ("place", "<u2"),  # of the tag in the record's tags
        ("label", "<u4"),
        ("sources", "u1"),  # as `tags.source_bits`
        ("box", "<f4", 4),
        ("score", "<f4"),
        ("photo_score", "<f4"),
    ]
)

Array = NDArray[Any]
Rows = NDArray[np.int64]
Features = NDArray[np.float16]


class RegionStore:
    """Filled input by input; then the regions are arrays, mapped from the disk."""

    def __init__(self) -> None:
        self.n_inputs = 0
        self._inputs, self._photos = scratch_file(), scratch_file()
        self._regions, self._features = scratch_file(), scratch_file()

    def add(self, item: Item, regions: Array, features: Features, photo: Features) -> None:
        """Add an input with its regions (`REGION`), their features and the photo's."""
        self._inputs.write(spool_line(item))
        if len(regions):
            regions["input"] = self.n_inputs
            self._regions.write(regions.tobytes())
            self._features.write(features.tobytes())
            self._photos.write(photo.tobytes())
        self.n_inputs += 1

    def inputs(self) -> Iterator[Item]:
        """All records and rejects, in input order."""
        self._inputs.seek(0)
        return unspool(self._inputs)

    @cached_property
    def regions(self) -> Array:
        """The regions (R,), `REGION`, in input order."""
        return _mapped(self._regions, REGION)

    @cached_property
    def features(self) -> Features:
        """The features of the regions (R, F), of unit length."""
        return _mapped(self._features, np.dtype(np.float16), len(self.regions))

    @cached_property
    def photos(self) -> Features:
        """The features of the photos that have regions (P, F), in input order."""
        return _mapped(self._photos, np.dtype(np.float16), len(np.unique(self.regions["input"])))

    @cached_property
    def _firsts(self) -> Rows:
        return np.searchsorted(self.regions["input"], np.arange(self.n_inputs + 1))

    def rows_of(self, number: int) -> slice:
        """The rows of the regions of one input."""
        return slice(*self._firsts[number : number + 2].tolist())

    def rows_by_label(self) -> list[Rows]:
        """The rows of each label that has regions."""
        labels = np.array(self.regions["label"])
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        return np.split(order, starts)[1:]


def _mapped(file: BinaryIO, dtype: np.dtype[Any], n_rows: int | None = None) -> Array:
    """The content of a file, as rows where their number is given."""
    file.flush()
    if not file.seek(0, 2):  # an empty file cannot be mapped
        return np.zeros(0 if n_rows is None else (0, 0), dtype)
    array = np.memmap(file, dtype, "r")
    return array if n_rows is None else array.reshape(n_rows, -1)
