"""Main things of photos: the labels that captions name first, and how early they name them."""

import numpy as np
from numpy.typing import NDArray

from ramctl.decide.fitting import THINGS
from ramctl.training.data.targets import Annotation, Caption, Targets

# How fast what is named later counts less; the first thing alone finds fewer main things.
PLACE_EXPONENT = 3.0


def things_in_order(caption: Caption, targets: Targets) -> list[int]:
    """The labels of the things in a caption, in its order."""
    ids = (targets.labels.ids(tag)[:1] for tag in caption.tags)
    indices = dict.fromkeys(index for label_ids in ids for index in label_ids)
    return [index for index in indices if targets.labels[index].kind in THINGS]


def main_things(annotation: Annotation, targets: Targets) -> list[int]:
    """The labels of a photo's main things: its record's, else what its captions name first."""
    if annotation.main is not None:
        return [index for tag in annotation.main for index in targets.labels.ids(tag)]
    by_caption = (things_in_order(c, targets) for c in annotation.captions if not c.generated)
    return [things[0] for things in by_caption if things]


def mentions(annotation: Annotation, targets: Targets) -> NDArray[np.float32]:
    """How early and often people's captions name each label (L,): 1, 1/8, 1/27, ... by place."""
    weights = np.zeros(len(targets), np.float32)
    for caption in annotation.captions:
        if not caption.generated:
            for place, index in enumerate(things_in_order(caption, targets), 1):
                weights[index] += place**-PLACE_EXPONENT
    return weights
