"""A collection: what `ramctl fit` learnt of one owner's photos, added to the model's log-odds.

Photos that are not of the collection are tagged as before. B photos, C channels of the pooled
features, L labels, F labels that the fit changes, T things that captions begin with.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NO_FIRST = -1


class Collection(NamedTuple):
    """Linear functions of the features, as in a bundle's `fit`."""

    labels: Array  # (F,)
    things: Array  # (T,)
    # (C + 1, 1 + F + T), the last row is a constant: above 0 for photos of the collection, what is
    # added to the labels' log-odds, and which thing comes first, beside `slope` x log-odds.
    weight: Array
    slope: Array  # ()
    new: Array  # labels that exist in the collection alone
    rows: Array  # of these
    lifted: Array  # labels that the change can make likely: they are always scored

    def values(self, pooled: Array) -> Array:
        """The values (B, 1 + F + T) of the functions by pooled features (B, C)."""
        return pooled @ self.weight[:-1] + self.weight[-1]

    def __call__(self, log_odds: Array, values: Array) -> tuple[Array, Array]:
        """The changed log-odds (B, L), and the labels (B,) that come first, else NO_FIRST."""
        is_own, added, first = np.split(values, [1, 1 + len(self.labels)], axis=1)
        first = first + self.slope * log_odds[:, self.things]
        likeliest = self.things[first.argmax(1)] if len(self.things) else NO_FIRST
        changed = log_odds.copy()
        changed[:, self.labels] += (is_own > 0) * added
        changed[:, self.new] = np.where(is_own > 0, changed[:, self.new], -np.inf)
        return changed, np.where(is_own[:, 0] > 0, likeliest, NO_FIRST)
