"""The labels' own vectors, fitted to what captions name, on a tagger that stays as it is.

Captions name a part of what is there, the main thing first. N photos, C channels of the pooled
features, L labels, K things.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ramctl.inference.salience import THINGS
from ramctl.labels import Labels
from ramctl.training.data.targets import Annotation, Targets, mentions

SEVERAL, SHORT, DENSE = range(3)  # styles of a photo's captions
DENSE_WORDS = 14  # a caption with more is a dense one
MIN_RATE, MAX_RATE = 0.02, 0.98
RATE_ROUNDS = 50  # of expectation maximisation
PRIOR_PHOTOS = 5.0  # that the overall rate counts for, beside those of each label
MIN_DIVISOR = 1e-4
MIN_PROBABILITY = 0.02  # less likely labels need not be known to estimate the rates
# Chosen by captions that the fit left out, of one collection of clothes, and by what the judged
# photos of other kinds lost.
ROUNDS, CHOICE_WEIGHT, RIDGE, BIAS_RIDGE, REPLAY_WEIGHT = 60, 10.0, 0.1, 1.0, 0.1
IMPLIED_WEIGHT = 0.1  # parents that captions imply: 1 gives them on nearly all photos


@dataclass(frozen=True, slots=True)
class Mentions:
    """The labels that photos' captions name, and how often they name one that is there."""

    present: Tensor  # (N, L)
    denied: Tensor  # (N, L) labels that are known not to be there
    implied: Tensor  # (N, L) parents of the present labels: there, but captions need not name them
    unknown: Tensor  # (N, L) labels that count neither way
    fractions: Tensor  # (N, K) of the mentions of things; the first counts most
    things: Tensor  # (K,) the labels that are things
    styles: Tensor  # (N,) rows of the rates
    rates: Tensor  # (3, L) of several captions, a short one, a dense one

    def at(self, photos: Tensor) -> "Mentions":
        names = ("present", "denied", "implied", "unknown", "fractions", "styles")
        return replace(self, **{name: getattr(self, name)[photos] for name in names})

    @classmethod
    def learn(
        cls, notes: Sequence[Annotation], labels: Labels, probabilities: Tensor,
        usual: Tensor | None = None,
    ) -> "Mentions":  # fmt: skip
        """The mentions of annotated photos; `probabilities` (N, L) that a label is there.

        `usual` (L,) are rates known from other photos, which few mentions do not change much.
        """
        targets = Targets(labels)
        shape = 4, len(notes), len(labels)
        present, denied, implied, unknown = torch.zeros(*shape, dtype=torch.bool)
        things = torch.tensor([i for i, label in enumerate(labels) if label.kind in THINGS])
        weights = torch.zeros(len(notes), len(things))
        for index, note in enumerate(notes):
            target = targets.of(note)
            present[index, torch.from_numpy(target.present)] = True
            denied[index, torch.from_numpy(target.denied)] = True
            implied[index, torch.from_numpy(target.implied)] = True
            unknown[index, torch.from_numpy(target.unknown)] = True
            weights[index] = torch.from_numpy(mentions(note, targets))[things]
        fractions = weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
        styles = torch.tensor([style_of(note) for note in notes])
        rates = mention_rates(present, denied | implied | unknown, styles, probabilities, usual)
        return cls(present, denied, implied, unknown, fractions.half(), things, styles, rates)


def style_of(note: Annotation) -> int:
    """The style of a photo's captions; SHORT for one without."""
    texts = [caption.text for caption in note.captions if not caption.generated]
    if len(texts) > 1:
        return SEVERAL
    return DENSE if any(len(text.split()) > DENSE_WORDS for text in texts) else SHORT


def mention_rates(
    present: Tensor, skipped: Tensor, styles: Tensor, probabilities: Tensor,
    usual: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """P(named | there) of each style of captions and each label (3, L)."""
    n_labels = present.shape[1]
    matters = (present | (probabilities > MIN_PROBABILITY)) & ~skipped
    photos, ids = matters.nonzero(as_tuple=True)
    cells = (styles[photos] * n_labels + ids).numpy()
    prior = None if usual is None else usual.repeat(3).numpy()
    rates = _fit_mention_rates(
        probabilities[photos, ids].numpy(), cells, present[photos, ids].numpy(), 3 * n_labels, prior
    )
    return torch.from_numpy(np.clip(rates, MIN_RATE, MAX_RATE)).view(3, n_labels)


def _fit_mention_rates(
    scores: NDArray[np.float32],
    cells: NDArray[np.int64],
    is_named: NDArray[np.bool_],
    n_cells: int,
    usual: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """P(named | shown) of each cell (n_cells), from n scores, taken as P(shown), and their cells.

    Maximum likelihood of P(named) = P(named | shown) P(shown) by expectation maximisation, with
    cells of few pairs drawn to the `usual` rates (n_cells), or to the overall rate.
    """
    n_named = np.bincount(cells, is_named, n_cells)
    unnamed_cells, unnamed_scores = cells[~is_named], scores[~is_named]
    rates = np.full(n_cells, 0.5, np.float32)
    for _ in range(RATE_ROUNDS):
        unnamed = np.bincount(
            unnamed_cells, _if_unmentioned(unnamed_scores, rates[unnamed_cells]), n_cells
        )
        overall = n_named.sum() / max(n_named.sum() + unnamed.sum(), MIN_DIVISOR)
        prior = overall if usual is None else usual
        rates = ((n_named + PRIOR_PHOTOS * prior) / (n_named + unnamed + PRIOR_PHOTOS)).astype(
            np.float32
        )
    return rates


def _if_unmentioned(shown: NDArray[np.float32], rates: NDArray[np.float32]) -> NDArray[np.float32]:
    """P(shown | no caption names it), from P(shown) and P(named | shown), by Bayes' rule.

    Captions nearly always name a dog, so one without it is evidence against a dog; few name the
    sky, so one without it is little evidence.
    """
    unnamed: NDArray[np.float32] = shown * (1 - rates)
    return unnamed / np.maximum(unnamed + 1 - shown, MIN_DIVISOR)


def unlabelled_loss(logits: Tensor, mentions: Mentions, implied_weight: float = 0.0) -> Tensor:
    """Positive-unlabelled log loss of logits (N, L), summed.

    A caption names a label that is there at its rate; so silence is only so much evidence against
    it: P(silence) = 1 - rate P(there). Labels that others imply count by `implied_weight`.
    """
    rates = mentions.rates[mentions.styles].masked_fill(mentions.denied, 1.0)
    there = F.logsigmoid(logits)
    silence = torch.log1p(-rates * logits.sigmoid().clamp(max=1 - 1e-6))
    unnamed = torch.where(mentions.implied, implied_weight * there, silence)
    loss = torch.where(mentions.present, there, unnamed.masked_fill(mentions.unknown, 0))
    return -loss.sum()


def choice_loss(logits: Tensor, fractions: Tensor) -> Tensor:
    """Cross-entropy of what captions name first, a choice among K things; (N, K), summed.

    A caption leaves out most of what is there, but its first thing is chosen among all: rare labels
    learn from it what silence does not teach them.
    """
    return -(fractions.float() * logits.log_softmax(1)).sum()


@dataclass(frozen=True, slots=True)
class Collection:
    """Captioned photos as a tagger sees them, whose log-odds of being right are known."""

    features: Tensor  # (N, C), each of mean 0, of all about 1 long
    log_odds: Tensor  # (N, L) of being right
    choice: Tensor  # (N, K) logits of being named first
    gains: Tensor  # (K,) by which these grow with the log-odds
    mentions: Mentions
    reference: Tensor  # (R, C) features of photos of all kinds, scaled as `features`; R may be 0

    def at(self, photos: Tensor) -> "Collection":
        parts = self.features[photos], self.log_odds[photos], self.choice[photos]
        return Collection(*parts, self.gains, self.mentions.at(photos), self.reference)


class Fitted(NamedTuple):
    """A linear change of the log-odds."""

    weight: Tensor  # (C, L)
    bias: Tensor  # (L,)


def fit(collection: Collection) -> Fitted:
    """The most likely change, small where the captions do not ask for it.

    On the reference photos the tagger's opinion shall stay. By L-BFGS in the space that the
    features span: N photos and R reference photos have at most N + R directions.
    """
    n_photos, n_reference = len(collection.features), len(collection.reference)
    features = torch.cat([collection.features, collection.reference])
    left, sizes, right = torch.linalg.svd(features, full_matrices=False)
    n_directions = int((sizes > 1e-3 * sizes[0]).sum())
    right = right[:n_directions]
    spanned = left[:, :n_directions] * sizes[:n_directions]
    photos, reference = spanned[:n_photos], spanned[n_photos:]
    replay = REPLAY_WEIGHT * n_photos / max(n_reference, 1)
    n_labels, mentions = collection.log_odds.shape[1], collection.mentions
    weight, bias = torch.zeros(n_directions, n_labels), torch.zeros(n_labels)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        optimiser.zero_grad()
        added = photos @ weight + bias
        choice = collection.choice + collection.gains * added[:, mentions.things]
        loss = unlabelled_loss(collection.log_odds + added, mentions, IMPLIED_WEIGHT)
        loss = loss + CHOICE_WEIGHT * choice_loss(choice, mentions.fractions)
        loss = loss + RIDGE / 2 * weight.square().sum() + BIAS_RIDGE / 2 * bias.square().sum()
        loss = loss + replay / 2 * (reference @ weight + bias).square().sum()
        loss.backward()
        return loss.detach()

    optimiser.step(cost)
    with torch.no_grad():
        return Fitted(right.t() @ weight, bias.clone())


def lifted(fitted: Fitted, collection: Collection, log_odds: float) -> Fitted:
    """The change with so much more for all labels of the collection's photos, but not of others.

    A linear function of the features is near 1 on the photos and near 0 on the reference ones.
    """
    n_photos = len(collection.features)
    if not len(collection.reference):
        return fitted._replace(bias=fitted.bias + log_odds)
    features = torch.cat([collection.features, collection.reference])
    target = torch.cat([torch.ones(n_photos), torch.zeros(len(collection.reference))])
    mean, usual = features.mean(0), target.mean()
    centred = features - mean
    inner = centred @ centred.t() + RIDGE * torch.eye(len(features))
    direction = centred.t() @ torch.linalg.solve(inner, target - usual)
    return Fitted(
        fitted.weight + log_odds * direction[:, None],
        fitted.bias + log_odds * (usual - mean @ direction),
    )
