"""How captions name labels: at which rates, and the losses of a fit that knows it.

Captions name a part of what is there, the main thing first. N photos, L labels, K things.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ramctl.inference.calibration import THINGS
from ramctl.records.labels import Labels
from ramctl.training.annotations import Annotation
from ramctl.training.data import DENIED, IMPLIED, PRESENT, UNKNOWN, Targets, mentions

SEVERAL, SHORT, DENSE = range(3)  # styles of a photo's captions
DENSE_WORDS = 14  # a caption with more is a dense one
MIN_RATE, MAX_RATE = 0.02, 0.98
RATE_ROUNDS = 50  # of expectation maximisation
PRIOR_PHOTOS = 5.0  # that the overall rate counts for, beside those of each label
MIN_PROBABILITY = 0.02  # less likely labels need not be known to estimate the rates


@dataclass(frozen=True, slots=True)
class Mentions:
    """The labels that photos' captions name, and how often they name one that is there."""

    present: Tensor  # (N, L)
    unknown: Tensor  # (N, L) labels that count neither way, parents of the present ones too
    denied: Tensor  # (N, L) labels that are known not to be there
    fractions: Tensor  # (N, K) of the mentions of things; the first counts most
    things: Tensor  # (K,) the labels that are things
    styles: Tensor  # (N,) rows of the rates
    rates: Tensor  # (3, L) of several captions, a short one, a dense one

    def at(self, photos: Tensor) -> "Mentions":
        names = ("present", "unknown", "denied", "fractions", "styles")
        return replace(self, **{name: getattr(self, name)[photos] for name in names})

    @classmethod
    def learn(
        cls, notes: Sequence[Annotation], labels: Labels, probabilities: Tensor
    ) -> "Mentions":
        """The mentions of annotated photos; `probabilities` (N, L) that a label is there."""
        targets = Targets(labels)
        states = torch.from_numpy(np.stack([targets.states(note) for note in notes]))
        present, denied = states == PRESENT, states == DENIED
        unknown = (states == UNKNOWN) | (states == IMPLIED)
        things = torch.tensor([i for i, label in enumerate(labels) if label.kind in THINGS])
        weights = torch.from_numpy(np.stack([mentions(note, labels) for note in notes]))[:, things]
        fractions = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        styles = torch.tensor([style_of(note) for note in notes])
        rates = mention_rates(present, denied | unknown, styles, probabilities)
        return cls(present, unknown, denied, fractions.half(), things, styles, rates)


def style_of(note: Annotation) -> int:
    """The style of a photo's captions; SHORT for one without."""
    texts = [caption.text for caption in note.captions if not caption.generated]
    if len(texts) > 1:
        return SEVERAL
    return DENSE if any(len(text.split()) > DENSE_WORDS for text in texts) else SHORT


def mention_rates(
    present: Tensor, skipped: Tensor, styles: Tensor, probabilities: Tensor
) -> Tensor:
    """P(named | there) of each style of captions and each label (3, L).

    Maximum likelihood of P(named) = P(named | there) P(there) by expectation maximisation, with
    labels of few photos drawn to the overall rate.
    """
    n_labels = present.shape[1]
    matters = (present | (probabilities > MIN_PROBABILITY)) & ~skipped
    photos, ids = matters.nonzero(as_tuple=True)
    cells = (styles[photos] * n_labels + ids).numpy()
    scores, is_named = probabilities[photos, ids].numpy(), present[photos, ids].numpy()
    n_cells = 3 * n_labels
    n_named = np.bincount(cells, is_named, n_cells)
    unnamed_cells, shown = cells[~is_named], scores[~is_named]
    rates: NDArray[np.float32] = np.full(n_cells, 0.5, np.float32)
    for _ in range(RATE_ROUNDS):
        # P(shown | no caption names it), by Bayes' rule.
        silent = shown * (1 - rates[unnamed_cells])
        unnamed = np.bincount(unnamed_cells, silent / np.maximum(silent + 1 - shown, 1e-4), n_cells)
        overall = n_named.sum() / max(n_named.sum() + unnamed.sum(), 1e-4)
        rates = (n_named + PRIOR_PHOTOS * overall) / (n_named + unnamed + PRIOR_PHOTOS)
        rates = rates.astype(np.float32)
    return torch.from_numpy(np.clip(rates, MIN_RATE, MAX_RATE)).view(3, n_labels)


def unlabelled_loss(logits: Tensor, mentions: Mentions) -> Tensor:
    """Positive-unlabelled log loss of logits (N, L), summed.

    A caption names a label that is there at its rate; so silence is only so much evidence against
    it: P(silence) = 1 - rate P(there).
    """
    rates = mentions.rates[mentions.styles].masked_fill(mentions.denied, 1.0)
    silence = torch.log1p(-rates * logits.sigmoid().clamp(max=1 - 1e-6))
    unnamed = silence.masked_fill(mentions.unknown, 0)
    return -torch.where(mentions.present, F.logsigmoid(logits), unnamed).sum()


def choice_loss(logits: Tensor, fractions: Tensor) -> Tensor:
    """Cross-entropy of what captions name first, a choice among K things; (N, K), summed.

    A caption leaves out most of what is there, but its first thing is chosen among all: rare labels
    learn from it what silence does not teach them.
    """
    return -(fractions.float() * logits.log_softmax(1)).sum()
