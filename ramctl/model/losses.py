"""The training losses.

Each is a sum and a count, so that means are over the global batch however it is split into ranks
and passes. B photos, L labels, S word pieces, V vocabulary, E text width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100  # target of word pieces that are not learnt


@dataclass(frozen=True, slots=True)
class LossTerm:
    """A loss before its mean: `total` / (the count over all ranks and passes)."""

    total: Tensor
    count: Tensor  # number of photos or word pieces in `total`, no gradient

    @property
    def mean(self) -> Tensor:
        """The mean over what this rank saw; 0 where it saw nothing."""
        return self.total / self.count.clamp(min=1)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 7.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    weights: Tensor | None = None,
) -> LossTerm:
    """Summed over labels, counted in photos; logits and 0/1 targets are (B, L).

    `weights`, broadcastable to (B, L), is 0 at labels of unknown truth and 1 / probability at
    sampled ones. The focusing weight has no gradient, and a negative below the margin `clip`
    costs nothing. Source: asymmetric loss as in the authors' utils.py, numbers of ram.py.
    """
    logits, targets = logits.float(), targets.float()
    positive = logits.sigmoid()
    negative = (1 - positive + clip).clamp(max=1)
    with torch.no_grad():
        focus = torch.where(targets > 0, (1 - positive) ** gamma_pos, (1 - negative) ** gamma_neg)
    likelihood = targets * positive.clamp(min=1e-8).log()
    likelihood = likelihood + (1 - targets) * negative.clamp(min=1e-8).log()
    loss = -likelihood * focus
    if weights is not None:
        loss = loss * weights
    return LossTerm(loss.sum(), _count(len(logits), logits))


def caption_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> LossTerm:
    """Label-smoothed cross-entropy of the next word piece, counted in word pieces.

    Logits (B, S, V); `targets` (B, S) are the captions' own word pieces, IGNORED where they are
    not learnt; the shift by one happens here.
    """
    targets = targets[:, 1:].flatten()
    logits = logits[:, :-1].float().flatten(0, 1)
    total = F.cross_entropy(
        logits, targets, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum"
    )
    return LossTerm(total, (targets != IGNORED).sum().float())


def distillation_loss(
    feature: Tensor, teacher: Tensor, *, kind: str = "l1", present: Tensor | None = None
) -> LossTerm:
    """Distance of the global feature (B, E) to the teacher's, counted in photos.

    `l1`: mean absolute difference over E (the authors', neither side normalised); `cosine`: one
    minus the cosine. `present` (B) is 0 at photos without a teacher's feature.
    """
    feature, teacher = feature.float(), teacher.detach().float()
    if kind == "l1":
        distance = (feature - teacher).abs().mean(-1)
    elif kind == "cosine":
        distance = 1 - F.cosine_similarity(feature, teacher, dim=-1)
    else:
        raise ValueError(f"unknown distillation loss {kind!r}")
    if present is None:
        return LossTerm(distance.sum(), _count(len(feature), feature))
    present = present.float()
    return LossTerm((distance * present).sum(), present.sum())


def class_memory_loss(logits: Tensor, former: Tensor) -> LossTerm:
    """Kullback-Leibler divergence of the backbone's class logits (B, K) from its former ones."""
    said = former.detach().float().log_softmax(-1)
    divergence = F.kl_div(logits.float().log_softmax(-1), said, reduction="sum", log_target=True)
    return LossTerm(divergence, _count(len(logits), logits))


def alignment_loss(
    logits: Tensor, same: Tensor | None = None, *, gamma_neg: float = 4.0, clip: float = 0.05
) -> LossTerm:
    """RAM++: which of the batch's texts belongs to which photo; logits (B, B).

    `same` (B, B) is true for texts that say the same: they are neither positive nor negative off
    the diagonal. The authors take them for negatives: leave it out to repeat that.
    """
    own = torch.eye(len(logits), device=logits.device)
    weights = None if same is None else (~same.bool()).float().maximum(own)
    return asymmetric_loss(logits, own, gamma_neg=gamma_neg, clip=clip, weights=weights)


def weighted_total(terms: Mapping[str, LossTerm], weights: Mapping[str, float]) -> Tensor:
    """The default objective: the terms' means, weighted by name."""
    return torch.stack([weights[name] * term.mean for name, term in terms.items()]).sum()


def ram_official_total(objective: str, terms: Mapping[str, LossTerm]) -> Tensor:
    """The authors' objective on one rank: sums over labels and photos, and their ratio.

    Terms `tag`, `caption`, `distill`, `alignment`. RAM and Tag2Text scale the tag loss to the
    caption loss's value; RAM++ adds plain sums. Source: authors' forward, ram_official A4.
    """
    tag = terms["tag"].total
    if objective == "ram-plus":
        total = tag + terms["alignment"].total
    else:
        caption = terms["caption"].mean
        total = caption + tag / (tag / caption).detach()
    return total + terms["distill"].mean if "distill" in terms else total


def _count(number: int, like: Tensor) -> Tensor:
    return torch.tensor(float(number), device=like.device)
