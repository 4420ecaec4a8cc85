"""The evidence of a backbone's own classes for labels: mini knows a toucan better than its curve.

A label lists the classes that it covers. Where their summed probability m is MIN_MASS or more, the
label is right if its curve or its classes say so, as if both were independent witnesses:

    P = 1 - (1 - sigmoid(z + a)) (1 - sigmoid(b log(m / (1 - m)) + c))

with z the log-odds by the curve, and a, b, c the same for all labels; nothing is lowered. A curve
is learnt from the few judged photos that show its label, the classes from a million. B photos, K
classes, L labels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.log_odds import Array, log_odds_of
from ramctl.records.labels import Labels

MIN_MASS = 0.05
Weights = tuple[float, float, float]
NONE: Weights = (0.0, 0.0, -np.inf)  # that change nothing


class ClassEvidence(NamedTuple):
    """Which labels cover which classes, and the weights a, b, c."""

    labels: NDArray[np.int64]  # (n,) that cover some
    classes: NDArray[np.int64]  # of the first of these, of the second ...
    starts: NDArray[np.int64]  # (n,) of each in `classes`
    temperature: float  # the photo graph's probabilities are flattened by it
    weights: Weights = NONE

    @classmethod
    def from_bundle(cls, bundle: Bundle, labels: Labels) -> "ClassEvidence | None":
        """The evidence by a bundle's `class_evidence`; None without."""
        weights = bundle.meta.get("class_evidence")
        return None if weights is None else cls.of(bundle, labels)._replace(weights=weights)

    @classmethod
    def of(cls, bundle: Bundle, labels: Labels) -> "ClassEvidence":
        """The evidence of the labels' classes, before its weights are learnt."""
        covering = [(index, label.classes) for index, label in enumerate(labels) if label.classes]
        lengths = np.array([len(covered) for _, covered in covering], np.int64)
        return cls(
            np.array([index for index, _ in covering], np.int64),
            np.array([number for _, covered in covering for number in covered], np.int64),
            np.cumsum(lengths) - lengths,
            float(bundle.meta["architecture"]["prior"]["temperature"]),
        )

    def masses(self, classes: Array) -> Array:
        """The probability (B, n) of the classes that each label covers, of all classes' (B, K)."""
        sharp = classes.astype(np.float64) ** self.temperature
        sharp /= sharp.sum(1, keepdims=True)
        return np.add.reduceat(sharp[:, self.classes], self.starts, axis=1)

    def __call__(self, log_odds: Array, masses: Array) -> Array:
        """The log-odds (B, L), raised by masses (B, n)."""
        raised, (a, b, c) = log_odds.copy(), self.weights
        photos, places = np.nonzero(masses > MIN_MASS)
        labels = self.labels[places]
        before = log_odds[photos, labels]
        curve, classes = before + a, b * log_odds_of(masses[photos, places]) + c
        either = np.logaddexp(np.logaddexp(curve, classes), curve + classes)
        raised[photos, labels] = np.maximum(before, either)
        return raised
