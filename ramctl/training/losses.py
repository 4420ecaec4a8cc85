"""The losses, each as a sum over photos and labels, pairs, tokens, or photos.

B photos, L labels, S tokens, V vocabulary, E text width, K classes of the backbone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ramctl.model.caption_tokenizer import IGNORED


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 7.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss summed over photos and labels; logits and 0/1 targets are (B, L).

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
    return (loss if weights is None else loss * weights).sum()


def alignment_loss(logits: Tensor, same: Tensor | None = None, *, clip: float = 0.05) -> Tensor:
    """The asymmetric loss of logits (B, B), whose diagonal is positive, summed over pairs.

    `same` (B, B) is true for equal texts, which are neither positive nor negative off the
    diagonal. Without it they are negatives, as in the authors' code.
    """
    diagonal = torch.eye(len(logits), device=logits.device)
    weights = None if same is None else (~same.bool()).float().maximum(diagonal)
    return asymmetric_loss(logits, diagonal, gamma_neg=4.0, clip=clip, weights=weights)


def caption_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Label-smoothed cross-entropy, summed over tokens.

    Logits are (B, S, V); `targets` (B, S) are the captions' tokens, IGNORED where they are not
    learnt; the shift by one happens here.
    """
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten(),
        ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum",
    )  # fmt: skip


def distillation_loss(
    feature: Tensor, teacher: Tensor, *, kind: str = "l1", present: Tensor | None = None
) -> Tensor:
    """The distance of the global feature (B, E) to the teacher's, summed over photos.

    `l1`: mean absolute difference over E (the authors', neither side normalised); `cosine`: one
    minus the cosine. `present` (B) is 0 at photos without a teacher's vector.
    """
    feature, teacher = feature.float(), teacher.detach().float()
    if kind == "l1":
        distance = (feature - teacher).abs().mean(-1)
    else:
        distance = 1 - F.cosine_similarity(feature, teacher, dim=-1)
    return (distance if present is None else distance * present.float()).sum()


def class_memory_loss(logits: Tensor, former: Tensor) -> Tensor:
    """Kullback-Leibler divergence of class logits (B, K) from the former ones, over photos."""
    target = former.detach().float().log_softmax(-1)
    return F.kl_div(logits.float().log_softmax(-1), target, reduction="sum", log_target=True)
