"""RAM++'s image-text alignment: which caption of a pass belongs to which photo.

B photos with a caption, and as many texts.
"""

import torch
from torch import Tensor

from ramctl.errors import UsageProblem
from ramctl.model.config import LossConfig
from ramctl.model.ram import RAM
from ramctl.training.data.batches import Batch
from ramctl.training.objectives.base import Forward, Objective
from ramctl.training.objectives.clip_teacher import ClipTeacher
from ramctl.training.objectives.tagging import asymmetric_loss


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
