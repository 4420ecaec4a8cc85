"""A collection: what `ramctl fit` learnt of one owner's photos, added to the model's scores.

Photos that are not of the collection are tagged as before. B photos, C channels of the pooled
features, L labels, F labels that the fit changes, T things that captions begin with.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.log_odds import Floats
from ramctl.inference.salience import Salience
from ramctl.labels import Labels

Ids = NDArray[np.int64]
NO_FIRST = -1


def standardised(pooled: NDArray[np.floating], mean: Floats, deviation: Floats) -> Floats:
    """The features (B, C + 1) of about unit length, with a constant 1 at their end."""
    scaled = (pooled - mean) / (deviation * np.sqrt(pooled.shape[1]))
    return np.concatenate([scaled, np.ones((len(scaled), 1))], 1)


@dataclass(frozen=True)
class Collection:
    """Linear changes of the log-odds; the last row of a matrix is the offset."""

    mean: Floats  # (C,)
    deviation: Floats  # (C,)
    gate: Floats  # (C + 1,) above 0 for photos of the collection
    labels: Ids  # (F,)
    change: Floats  # (C + 1, F) of the labels' log-odds
    first: Ids  # (T,)
    first_change: Floats  # (C + 1, T) of the logits of being named first
    lifted: Ids  # labels that the change can make likely: they are always scored
    new: int  # labels from this one on exist in the collection alone
    salience: Salience

    @classmethod
    def from_bundle(cls, bundle: Bundle, labels: Labels) -> "Collection | None":
        """The collection of a bundle that `ramctl fit` wrote; None for another."""
        stored = {name: values for name, values in bundle.fit.items() if name != "rows"}
        salience = Salience.from_bundle(bundle.meta.get("salience"), labels)
        if not stored or salience is None:
            return None
        arrays: dict[str, Any] = {
            name: values if values.dtype == np.int64 else values.astype(np.float64)
            for name, values in stored.items()
        }
        return cls(**arrays | {"new": int(arrays["new"][0]), "salience": salience})

    def is_own(self, pooled: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether photos (B,) are of the collection, by their pooled features (B, C)."""
        return standardised(pooled, self.mean, self.deviation) @ self.gate > 0

    def __call__(
        self,
        log_odds: NDArray[np.floating],
        pooled: NDArray[np.floating],
        is_own: NDArray[np.bool_],
    ) -> tuple[Floats, Ids]:
        """The changed log-odds (B, L), and the labels (B,) that come first, else NO_FIRST."""
        features = standardised(pooled, self.mean, self.deviation)[is_own]
        usual = self.salience.slope * log_odds[is_own][:, self.first]
        usual += self.salience.weights[self.first]
        first = np.full(len(log_odds), NO_FIRST, np.int64)
        if len(self.first):
            first[is_own] = self.first[(usual + features @ self.first_change).argmax(1)]
        changed = log_odds.astype(np.float64)
        changed[np.ix_(is_own, self.labels)] += features @ self.change
        changed[~is_own, self.new :] = -np.inf
        return changed, first
