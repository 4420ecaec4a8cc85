"""The captioning objective: cross-entropy of the next token.

B photos with a caption, S tokens, V vocabulary.
"""

import torch.nn.functional as F
from torch import Tensor

from ramctl.model.caption_tokenizer import IGNORED
from ramctl.model.config import LossConfig
from ramctl.model.ram import RAM
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.base import Forward, Objective


class Captioning(Objective):
    """The caption of a photo, given its tags."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__("caption", weight=config.caption_weight)
        self.smoothing = config.label_smoothing

    def count(self, batch: Batch) -> float:
        """Tokens that are learnt."""
        targets = batch.caption_targets
        return 0.0 if targets is None else float((targets[:, 1:] != IGNORED).sum())

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The sum over tokens; nothing where no photo has a caption."""
        targets, logits = forward.batch.caption_targets, forward.output.caption_logits
        if targets is None or logits is None:
            return {}
        return {"caption": caption_loss(logits, targets, smoothing=self.smoothing)}


def caption_loss(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Label-smoothed cross-entropy, summed over tokens.

    Logits (B, S, V); `targets` (B, S) are the captions' own tokens, IGNORED where they are
    not learnt; the shift by one happens here.
    """
    return F.cross_entropy(
        logits[:, :-1].float().flatten(0, 1), targets[:, 1:].flatten(),
        ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum",
    )  # fmt: skip
