"""The global branch of `mini`: what the pooled feature and the backbone's own classes tell.

Logits of the tag decoder learn slowly from few photos; the backbone's ImageNet head already knows
a thousand classes, and in the label queries' space they say something about every label.
B batch, T tokens, C channels, E text width, R own width, K classes of the backbone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.config import LabelConfig, PriorConfig
from ramctl.model.queries import LabelParts


@dataclass(frozen=True, slots=True)
class GlobalFeatures:
    """What is known of a photo as a whole."""

    feature: Tensor  # (B, E) in the label queries' space; distillation acts on it
    token: Tensor | None  # (B, 1, D) one more token for the tag decoder
    own: Tensor | None  # (B, R) meets the vectors that seen labels own


class GlobalBranch(nn.Module):
    """Pooled feature f to the label space: g = MLP(f) + softmax(classifier(f)) N.

    N (K, E) are the unit embeddings of the class names. Every part can be switched off.
    """

    class_names: Tensor

    def __init__(
        self, config: PriorConfig, labels: LabelConfig, channels: int, token_width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.to_label_space = _mlp(channels, config.mlp_width, labels.width)
        self.own_projection = nn.Linear(channels, labels.own_width) if labels.own_width else None
        self.scale = nn.Parameter(torch.tensor(5.0)) if config.similarity else None
        self.classifier = nn.Linear(channels, config.classes) if config.classes else None
        self.token_projection = nn.Linear(labels.width, token_width) if config.class_token else None
        if self.classifier is not None:
            # Frozen: the mixture stays what the backbone knew before training.
            self.classifier.requires_grad_(False)
            self.register_buffer("class_names", torch.zeros(config.classes, labels.width))

    def set_classes(self, weight: Tensor, bias: Tensor, names: Tensor) -> None:
        """Take the backbone's classifier (K, C), (K) and its class-name embeddings (K, E)."""
        assert self.classifier is not None
        with torch.no_grad():
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(bias)
            self.class_names.copy_(F.normalize(names, dim=-1))

    def class_mixture(self, features: Tensor) -> Tensor:
        """The class names' embeddings, mixed by the classifier's probabilities, (B, E)."""
        assert self.classifier is not None
        logits = self.classifier(features.mean(1)) / self.config.temperature
        return logits.softmax(-1) @ self.class_names

    def forward(self, features: Tensor) -> GlobalFeatures:
        """The global features of the backbone's tokens (B, T, C)."""
        pooled = features.mean(1)  # (B, C)
        feature, token = self.to_label_space(pooled), None
        if self.classifier is not None:
            mixture = self.class_mixture(features)
            if self.config.class_residual:
                feature = feature + mixture
            if self.token_projection is not None:
                token = self.token_projection(mixture)[:, None]
        own = None if self.own_projection is None else self.own_projection(pooled)
        return GlobalFeatures(feature, token, own)

    def text_logits(self, photo: GlobalFeatures, labels: LabelParts) -> Tensor | float:
        """What a label's text adds to its logit, (B, L): scale <g, e>."""
        if self.scale is None:
            return 0.0
        return self.scale * (F.normalize(photo.feature, dim=-1) @ labels.text.t())

    def own_logits(self, photo: GlobalFeatures, labels: LabelParts) -> Tensor | float:
        """What a seen label's own vector adds to its logit, (B, L): <own, U f>."""
        return 0.0 if photo.own is None else photo.own @ labels.own.t()


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
