"""Losses of the labels' own vectors by what captions name, on a tagger that stays as it is.

Captions name a part of what is there, the main thing first. N photos, L labels, K things.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ramctl.decide.fitting import THINGS
from ramctl.labels import LabelSystem
from ramctl.training.data.targets import Annotation, Targets, mentions
from ramctl.training.data.teachers import fit_mention_rates

DENSE_WORDS = 14  # a caption with more is a dense one
MIN_RATE, MAX_RATE = 0.02, 0.98
MIN_PROBABILITY = 0.02  # less likely labels need not be known to estimate the rates


@dataclass(frozen=True, slots=True)
class Mentions:
    """The labels that photos' captions name, and how often they name one that is there."""

    present: Tensor  # (N, L)
    denied: Tensor  # (N, L) labels that are known not to be there
    unknown: Tensor  # (N, L) labels that count neither way: parents of these, unknown ones
    fractions: Tensor  # (N, K) of the mentions of things; the first counts most
    things: Tensor  # (K,) the labels that are things
    styles: Tensor  # (N,) rows of the rates
    rates: Tensor  # (3, L) of several captions, a short one, a dense one

    def at(self, photos: Tensor) -> "Mentions":
        """The mentions of some of the photos."""
        names = ("present", "denied", "unknown", "fractions", "styles")
        return replace(self, **{name: getattr(self, name)[photos] for name in names})

    @classmethod
    def learn(
        cls, notes: Sequence[Annotation], labels: LabelSystem, probabilities: Tensor
    ) -> "Mentions":
        """The mentions of annotated photos; `probabilities` (N, L) that a label is there."""
        targets = Targets(labels)
        present, denied, skipped = torch.zeros(3, len(notes), len(labels), dtype=torch.bool)
        things = torch.tensor([i for i, label in enumerate(labels) if label.kind in THINGS])
        weights = torch.zeros(len(notes), len(things))
        for index, note in enumerate(notes):
            target = targets.of(note)
            present[index, torch.from_numpy(target.present)] = True
            denied[index, torch.from_numpy(target.denied)] = True
            for ids in (target.implied, target.unknown):
                skipped[index, torch.from_numpy(ids)] = True
            weights[index] = torch.from_numpy(mentions(note, targets))[things]
        fractions = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        styles = torch.tensor([style_of(note) for note in notes])
        rates = mention_rates(present, denied | skipped, styles, probabilities)
        return cls(present, denied, skipped, fractions.half(), things, styles, rates)


def style_of(note: Annotation) -> int:
    """The style of a photo's captions: 0 several, 1 a short one or none, 2 a dense one."""
    texts = [caption.text for caption in note.captions if not caption.generated]
    if len(texts) > 1:
        return 0
    return 1 + any(len(text.split()) > DENSE_WORDS for text in texts)


def mention_rates(
    present: Tensor, skipped: Tensor, styles: Tensor, probabilities: Tensor
) -> Tensor:
    """P(named | there) of each style of captions and each label (3, L)."""
    n_labels = present.shape[1]
    matters = (present | (probabilities > MIN_PROBABILITY)) & ~skipped
    photos, ids = matters.nonzero(as_tuple=True)
    cells = (styles[photos] * n_labels + ids).numpy()
    rates = fit_mention_rates(
        probabilities[photos, ids].numpy(), cells, present[photos, ids].numpy(), 3 * n_labels
    )
    return torch.from_numpy(np.clip(rates, MIN_RATE, MAX_RATE)).view(3, n_labels)


def unlabelled_loss(logits: Tensor, mentions: Mentions) -> Tensor:
    """Positive-unlabelled log loss of logits (N, L), summed.

    A caption names a label that is there at its rate; so silence is only so much evidence against
    it: P(silence) = 1 - rate P(there).
    """
    present, rates = (
        mentions.present,
        mentions.rates[mentions.styles].masked_fill(mentions.denied, 1.0),
    )
    silence = torch.log1p(-rates * logits.sigmoid().clamp(max=1 - 1e-6))
    loss = torch.where(present, F.logsigmoid(logits), silence)
    return -loss.masked_fill(mentions.unknown & ~present, 0).sum()


def choice_loss(logits: Tensor, fractions: Tensor) -> Tensor:
    """Cross-entropy of what captions name first, a choice among K things; (N, K), summed.

    A caption leaves out most of what is there, but its first thing is chosen among all: rare labels
    learn from it what silence does not teach them.
    """
    return -(fractions.float() * logits.log_softmax(1)).sum()
