"""Tagging and RAM++'s image-text alignment, both by the asymmetric loss.

B photos, L labels, n labels of a pass.
"""

from functools import partial

import torch
from torch import Tensor

from ramctl.errors import UsageProblem
from ramctl.model.config import LossConfig
from ramctl.model.ram import RAM
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.base import Forward, Objective, SampledLabels
from ramctl.training.objectives.clip_teacher import ClipTeacher

LEAST_SHARE_OF_OTHERS = 4  # at least one in four sampled labels is absent from the batch
LIKELY = 0.1  # with a target above it, a label counts as present in the batch


class Tagging(Objective):
    """Which labels a photo shows: of all labels, or of a sample of them."""

    trained: Tensor | None

    def __init__(self, model: RAM, config: LossConfig, trained: Tensor | None) -> None:
        if config.decouple_own and not (model.labels.own.numel() or model.labels.bias.numel()):
            raise UsageProblem("training.decouple_own: this model's labels own nothing")
        names = ("tag", "tag text") if config.decouple_own else ("tag",)
        super().__init__(*names, weight=config.tag_weight)
        self.config = config
        self.register_buffer("trained", trained, persistent=False)  # (L,) bool; None: all labels

    def sample(self, targets: Tensor) -> SampledLabels | None:
        """The labels of a pass; None for all of them. Without a weight nobody asks for any."""
        if self.config.captions_alone:
            return SampledLabels(torch.zeros(0, dtype=torch.long), torch.zeros(0))
        # Not torch's own stream: sampling must not shift the random numbers of dropout.
        generator = torch.Generator().manual_seed(torch.initial_seed() & 0x7FFFFFFF)
        return sample_labels(targets, self.config.sampled_labels, generator, self.trained)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over photos and labels; twice where what labels own is decoupled."""
        sampled, output = forward.sampled, forward.output
        targets, weights = forward.batch.targets, forward.batch.weights
        if sampled is not None:
            targets = targets[:, sampled.ids]
            weights = None if weights is None else weights[:, sampled.ids]
            weights = sampled.weights if weights is None else weights * sampled.weights
        loss = partial(
            asymmetric_loss, targets=targets, gamma_neg=self.config.gamma_neg,
            gamma_pos=self.config.gamma_pos, clip=self.config.clip, weights=weights,
        )  # fmt: skip
        if not self.config.decouple_own:
            return {"tag": loss(output.tag_logits)}
        # The gradient of the first sum does not reach the text logits: they cannot lean on what
        # labels own, so that words that were not trained on are scored better.
        logits = output.text_logits.detach() + output.own_logits
        return {"tag": loss(logits), "tag text": loss(output.text_logits)}


def sample_labels(
    targets: Tensor, number: int, generator: torch.Generator, trained: Tensor | None = None
) -> SampledLabels | None:
    """All labels that are in the batch, and random others up to `number`; None for all labels.

    A drawn label weighs as much as the labels it was drawn from, so that the expected loss is that
    over all labels, or over those that are `trained` (L,).
    """
    n_labels = targets.shape[1] if trained is None else int(trained.sum())
    everything = None
    if trained is not None:
        ids = trained.nonzero()[:, 0]
        everything = SampledLabels(ids, torch.ones(len(ids), device=ids.device))
    if not number or number >= n_labels:
        return everything
    present = (targets > LIKELY).any(0)
    absent = ~present
    if trained is not None:
        present, absent = present & trained, absent & trained
    own, others = present.nonzero()[:, 0], absent.nonzero()[:, 0]
    n_drawn = max(number - len(own), number // LEAST_SHARE_OF_OTHERS)
    if n_drawn >= len(others):
        return everything
    order = torch.randperm(len(others), generator=generator)[:n_drawn]
    drawn = others[order.to(others.device)]
    weights = torch.cat([torch.ones(len(own)), torch.full((n_drawn,), len(others) / n_drawn)])
    return SampledLabels(torch.cat([own, drawn]), weights.to(targets.device))


class Alignment(Objective):
    """Each photo against all captions of the pass, asked as if they were labels."""

    def __init__(self, config: LossConfig, clip: ClipTeacher | None) -> None:
        if clip is None:
            raise UsageProblem(
                "training.alignment_weight needs --distill clip:FOLDER: captions' texts"
            )
        super().__init__("alignment", weight=config.alignment_weight)
        self.config = config
        self.clip = clip

    def count(self, batch: Batch) -> float:
        """Photos with a caption."""
        return float(len(batch.caption_texts))

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over pairs of a photo and a text; nothing where no photo has a caption."""
        batch, same = forward.batch, None
        if batch.caption_rows is None:
            return {}
        texts = self.clip.text_features(batch.caption_texts)
        logits = model.tag_logits(forward.output.encoded[batch.caption_rows], texts)
        if self.config.loss != "ram-official":
            same = torch.tensor(
                [[a == b for b in batch.caption_texts] for a in batch.caption_texts],
                device=logits.device,
            )
        return {
            "alignment": alignment_loss(
                logits, same, gamma_neg=self.config.alignment_gamma_neg, clip=self.config.clip
            )
        }


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
    if weights is not None:
        loss = loss * weights
    return loss.sum()


def alignment_loss(
    logits: Tensor, same: Tensor | None = None, *, gamma_neg: float = 4.0, clip: float = 0.05
) -> Tensor:
    """The asymmetric loss of logits (B, B), whose diagonal is positive, summed over pairs.

    `same` (B, B) is true for texts that say the same: off the diagonal they are neither positive
    nor negative. The authors take them for negatives: leave it out to repeat that.
    """
    own = torch.eye(len(logits), device=logits.device)
    weights = None if same is None else (~same.bool()).float().maximum(own)
    return asymmetric_loss(logits, own, gamma_neg=gamma_neg, clip=clip, weights=weights)
