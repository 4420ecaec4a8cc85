"""The class memory: a backbone that is trained must not forget the classes it came with.

B photos, E text width, K classes of the backbone.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.config import TrainingConfig
from ramctl.model.ram import RAM
from ramctl.training.objectives.base import Forward, Objective


class ClassMemory(Objective):
    """The backbone's own class probabilities stay near those from before training."""

    def __init__(self, model: RAM, config: TrainingConfig) -> None:
        if not has_classes(model) or not config.backbone.backbone_lr_factor:
            raise UsageProblem(
                "training.classes_weight needs model.prior.classes and a backbone that is trained"
            )
        super().__init__("classes", weight=config.losses.classes_weight)

    def sums(self, model: RAM, forward: Forward) -> dict[str, Tensor]:
        """The divergence from the former probabilities, summed over photos."""
        assert model.prior is not None and forward.former is not None
        logits = model.prior.class_logits(forward.output.features)
        return {"classes": class_memory_loss(logits, forward.former[1])}


class FormerBackbone(nn.Module):
    """A copy of the encoder and its classifier from before training.

    It takes what the encoder takes: photos, or the output of its frozen stages.
    """

    def __init__(self, model: RAM) -> None:
        super().__init__()
        assert model.prior is not None
        self.encoder = copy.deepcopy(model.encoder)
        self.prior = copy.deepcopy(model.prior)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FormerBackbone":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """The class-name mixture (B, E) and the classifier's logits (B, K)."""
        features = self.encoder(photos)
        return self.prior.class_mixture(features), self.prior.class_logits(features)


def has_classes(model: RAM) -> bool:
    """Whether the model keeps the backbone's own classifier."""
    return model.prior is not None and model.prior.classifier is not None


def class_memory_loss(logits: Tensor, former: Tensor) -> Tensor:
    """Kullback-Leibler divergence of class logits (B, K) from the former ones, over photos."""
    said = former.detach().float().log_softmax(-1)
    now = logits.float().log_softmax(-1)
    return F.kl_div(now, said, reduction="sum", log_target=True)
