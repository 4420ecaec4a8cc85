"""What captions name first, and the weights of labels that say so: see `ramctl.salience`.

N photos, L labels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ramctl.calibration import log_odds_of
from ramctl.labels import LabelSystem
from ramctl.salience import Salience
from ramctl.training.data.targets import Annotation, Caption, Targets

Floats = NDArray[np.float32]

THINGS = ("object", "scene")
MOST_PHOTOS = 5000  # three times as many rank the main things of judged photos no better
# What a weight costs beside the captions. From 0.05 to 2 makes little difference.
RIDGE = 1.0
ROUNDS = 60  # of L-BFGS
# How fast what is named later counts less. The first tag names the subject of 49 and 51 % of the
# judged photos, with 1 of 44 and 47 %; the first thing alone finds fewer main things.
PLACE_COUNTS = 3.0


def things_in_order(caption: Caption, targets: Targets) -> list[int]:
    """The labels of the things that a caption names, in its order."""
    ids = (targets.labels.ids(tag)[:1] for tag in caption.tags)
    named = dict.fromkeys(index for some in ids for index in some)
    return [index for index in named if targets.labels[index].kind in THINGS]


def main_things(annotation: Annotation, targets: Targets) -> list[int]:
    """Labels of what a photo is of: as its record says, else what its captions name first."""
    if annotation.main is not None:
        return [index for tag in annotation.main for index in targets.labels.ids(tag)]
    named = (things_in_order(c, targets) for c in annotation.captions if not c.generated)
    return [things[0] for things in named if things]


def mentions(annotation: Annotation, targets: Targets) -> Floats:
    """How early and often people's captions name each label (L,): 1, 1/8, 1/27, ... by place."""
    named = np.zeros(len(targets), np.float32)
    for caption in annotation.captions:
        if not caption.generated:
            for place, index in enumerate(things_in_order(caption, targets), 1):
                named[index] += place**-PLACE_COUNTS
    return named


def learn_salience(
    scores: Floats, named: Floats, labels: LabelSystem, general: Sequence[str] = ()
) -> Salience | None:
    """The salience that scores and `mentions` (N, L) of captioned photos give; None without any.

    The greatest likelihood of what captions name, as shares of a softmax over all things.
    """
    is_told = named.any(1)
    things = np.flatnonzero([label.kind in THINGS for label in labels])
    if not is_told.any():
        return None
    log_odds = torch.from_numpy(log_odds_of(scores[is_told][:, things].astype(np.float64))).float()
    shares = torch.from_numpy(named[is_told][:, things])
    shares /= shares.sum(1, keepdim=True)
    slope = torch.ones((), requires_grad=True)
    weights = torch.zeros(len(things), requires_grad=True)
    fit = torch.optim.LBFGS([slope, weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        fit.zero_grad()
        likelihood = (shares * (slope * log_odds + weights).log_softmax(1)).sum()
        loss = (RIDGE * weights.square().sum() - likelihood) / len(shares)
        loss.backward()
        return loss.detach()

    fit.step(cost)
    of_all = np.full(len(labels), -np.inf)
    of_all[things] = weights.detach().numpy()
    ids = {tag: labels.ids(tag)[0] for tag in general if labels.ids(tag)}
    careful = {  # the labels that are kinds of the `general` ones, and of which
        index: ids[tag] for tag in ids for index, label in enumerate(labels) if tag in label.parents
    }
    return Salience(float(slope.detach()), of_all, careful=careful)
