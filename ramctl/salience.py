"""What a photo is of: the chance that a tag names one of its main things.

Captions know: what they name first is what the photo is of. The share of each label among what
captions name is a softmax over the scores of things and a weight of each, which
`training.salience` learns. Judged photos say how often a thing of such a share is a main one.
L labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Log-odds of being a main thing by those of being right and by the log share, and a constant: of
# 487 judged photos. Other photos may have their own.
MAIN = (0.46, 0.53, 0.73)
# A share is one of the so many likeliest things: the rest of the labels need no score for it. Of 8,
# 16, 32 and all the subject is named on 82.6, 82.8, 83.0 and 82.6 % of the judged photos.
NAMED = 16
FURTHEST = 8.0  # log-odds of being right beyond which more of them says nothing
LEAST_SHARE = 1e-6
# A thing with a greater chance than this may be less certain than others: by how much was chosen on
# five folds of origins of the judged photos.
USUAL = 0.1
FEWEST_MAIN = 50  # main things that must be known to learn how often such are
RIDGE = 0.1


@dataclass(frozen=True)
class Salience:
    """How likely labels are named first; `weights` (L,) are -inf where they are no things.

    `main` makes a share and a certainty the chance of being a main thing. `careful` labels are
    given for their own certainty alone; what each is a kind of may be given in its place.
    """

    slope: float
    weights: Floats
    main: tuple[float, float, float] = MAIN
    careful: Mapping[int, int] = field(default_factory=dict)

    def _log_shares(self, of_scores: Floats) -> Floats:
        """Log of each label's share (..., L) of what captions name, from scores' log-odds.

        Shares add up to 1 over the NAMED likeliest.
        """
        logits = self.slope * of_scores + self.weights
        top = logits.max(axis=-1, keepdims=True, initial=-FURTHEST)
        shares = np.exp(logits - top)
        few = min(NAMED, shares.shape[-1])
        total = np.partition(shares, -few, axis=-1)[..., -few:].sum(axis=-1, keepdims=True)
        logs: Floats = np.log(shares / np.maximum(total, LEAST_SHARE) + LEAST_SHARE)
        return logs

    def chances(self, of_scores: Floats, of_right: Floats) -> Floats:
        """The chance (..., L) that each label names a main thing; 0 of attributes and actions.

        `of_scores` and `of_right` (..., L) are log-odds: of the scores, and of being right.
        """
        logits = self._inputs(of_scores, of_right) @ np.array(self.main)
        chances = (1 + np.tanh(logits / 2)) / 2
        return np.where(np.isfinite(self.weights), chances, 0.0)

    def _inputs(self, of_scores: Floats, of_right: Floats) -> Floats:
        certain = np.clip(np.nan_to_num(of_right, nan=-FURTHEST), -FURTHEST, FURTHEST)
        shares = self._log_shares(of_scores)
        return np.stack([certain, shares, np.ones_like(shares)], -1)

    def fitted(self, of_scores: Floats, of_right: Floats, is_main: NDArray[np.bool_]) -> "Salience":
        """With `main` as photos (N, L) give it whose main things are known; else unchanged."""
        counts = np.isfinite(of_right) & np.isfinite(self.weights)
        if is_main[counts].sum() < FEWEST_MAIN:
            return self
        inputs, is_main = self._inputs(of_scores, of_right)[counts], is_main[counts]
        main = np.array(MAIN)
        for _ in range(20):  # Newton's method
            chance = (1 + np.tanh(inputs @ main / 2)) / 2
            gradient = inputs.T @ (is_main - chance) - RIDGE * main
            hessian = (inputs * (chance * (1 - chance))[:, None]).T @ inputs
            main = main + np.linalg.solve(hessian + RIDGE * np.eye(3), gradient)
        certain, share, constant = main.tolist()
        return replace(self, main=(certain, share, constant))

    def shifted(self, shifts: Floats) -> "Salience":
        """That of a model whose scores have the shifts (L,) added to their log-odds."""
        return replace(self, weights=self.weights - self.slope * shifts)

    def allowances(self, chances: Floats) -> Floats:
        """By how much less certain tags may be, in log-odds, for `chances` (..., L)."""
        allowances = most_allowed(chances)
        allowances[..., list(self.careful)] = 0.0
        return allowances

    def of(self, ids: Sequence[int | None]) -> "Salience":
        """That of other labels, by which of these they are; new words are things as any other."""
        things = self.weights[np.isfinite(self.weights)]
        usual = float(np.median(things)) if len(things) else 0.0
        weights = [usual if i is None else self.weights[i] for i in ids]
        places = {i: place for place, i in enumerate(ids)}
        kept = (pair for pair in self.careful.items() if places.keys() >= {*pair})
        careful = {places[i]: places[general] for i, general in kept}
        return replace(self, weights=np.array(weights, np.float64), careful=careful)

    def to_json(self) -> dict[str, Any]:
        """As it is stored; null for a label that is no thing."""
        weights = [round(w, 3) if np.isfinite(w) else None for w in self.weights.tolist()]
        numbers = [round(number, 4) for number in self.main]
        careful = [list(pair) for pair in self.careful.items()]
        slope = round(self.slope, 4)
        return {"slope": slope, "main": numbers, "weights": weights, "careful": careful}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> "Salience":
        """As stored; KeyError, TypeError or ValueError where it is damaged."""
        weights = [-np.inf if w is None else float(w) for w in table["weights"]]
        certain, share, constant = map(float, table["main"])
        careful = {int(index): int(general) for index, general in table["careful"]}
        if not {*careful, *careful.values()} <= {*range(len(weights))}:
            raise ValueError("careful labels that are none")
        return cls(float(table["slope"]), np.array(weights), (certain, share, constant), careful)


def most_allowed(chances: Floats) -> Floats:
    """The allowances of labels that are not careful ones."""
    return np.log(np.maximum(chances, USUAL) / USUAL)
