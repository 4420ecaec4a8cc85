"""The global branch of `mini`: logits from the pooled feature and the backbone's ImageNet classes.

The tag decoder learns slowly from few photos; the backbone's ImageNet head already knows a
thousand classes, which in the label queries' space are evidence for every label.
B batch, T tokens, C channels, L labels, E text width, R own width, K classes of the backbone.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ramctl.model.label_queries import LabelParts
from ramctl.model.preset import LabelConfig, PriorConfig

# Where the offset of the text logits starts. exp(k <n, e>) is 1 or more for nearly all labels while
# most labels are rare; without it the first epoch goes into learning an offset.
OFFSET = -5.0
# Labels' own vectors start at zero, so this decides how fast they learn.
OWN_STD = 0.045


@dataclass(frozen=True, slots=True)
class GlobalFeatures:
    """The features of a photo as a whole."""

    feature: Tensor  # (B, E) in the label queries' space; distillation acts on it
    token: Tensor | None = None  # (B, 1, D) one more token for the tag decoder
    own: Tensor | None = None  # (B, R) multiplied by the vectors of trained labels
    classes: Tensor | None = None  # (B, K) probabilities of the backbone's classes
    pooled: Tensor | None = None  # (B, C) the mean of the backbone's tokens


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
        hidden = config.mlp_width
        self.to_label_space: nn.Module = nn.Linear(channels, hidden or labels.width)
        if hidden:
            last = nn.Linear(hidden, labels.width)
            self.to_label_space = nn.Sequential(self.to_label_space, nn.GELU(), last)
        self.own_projection = nn.Linear(channels, labels.own_width) if labels.own_width else None
        if self.own_projection is not None:
            nn.init.normal_(self.own_projection.weight, std=OWN_STD)
        self.scale = nn.Parameter(torch.tensor(10.0)) if config.similarity else None
        self.classifier = nn.Linear(channels, config.classes) if config.classes else None
        self.token_projection = nn.Linear(labels.width, token_width) if config.class_token else None
        if config.class_sharpness:
            self.class_scale = nn.Parameter(torch.tensor(1.0))
            self.offset = nn.Parameter(torch.tensor(OFFSET))
        if self.classifier is not None:
            # Frozen: the mixture stays what the backbone knew before training.
            self.classifier.requires_grad_(False)
            self.register_buffer("class_names", torch.zeros(config.classes, labels.width))

    def set_classes(self, weight: Tensor, bias: Tensor, names: Tensor) -> None:
        """Set the backbone's classifier (K, C), (K) and its class-name embeddings (K, E)."""
        assert self.classifier is not None
        with torch.no_grad():
            self.classifier.weight.copy_(weight)
            self.classifier.bias.copy_(bias)
            self.class_names.copy_(F.normalize(names, dim=-1))

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (B, K) of the backbone's classes for tokens (B, T, C)."""
        assert self.classifier is not None
        return self.classifier(features.mean(1))

    def class_probabilities(self, features: Tensor) -> Tensor:
        """The classifier's probabilities, flattened by the temperature, (B, K)."""
        return (self.class_logits(features) / self.config.temperature).softmax(-1)

    def forward(self, features: Tensor) -> GlobalFeatures:
        """The global features of the backbone's tokens (B, T, C)."""
        mean = features.mean(1)  # (B, C)
        pooled = F.dropout(mean, self.config.dropout, self.training)
        feature, token, classes = self.to_label_space(pooled), None, None
        if self.classifier is not None:
            classes = self.class_probabilities(features)
            mixture = classes @ self.class_names
            if self.token_projection is not None:
                token = self.token_projection(mixture)[:, None]
        own = None if self.own_projection is None else self.own_projection(pooled)
        return GlobalFeatures(feature, token, own, classes, mean)

    def prepare(self, text: Tensor) -> Tensor | None:
        """The likeness (L, K) of labels (L, E) to the class names: exp(k <n, e>)."""
        sharpness = self.config.class_sharpness
        return (sharpness * (text @ self.class_names.t())).exp() if sharpness else None

    def logits(
        self, photo: GlobalFeatures, labels: LabelParts, likeness: Tensor | None
    ) -> tuple[Tensor | float, Tensor | float]:
        """The logits (B, L) by labels' text, and those by trained labels' own vectors.

        `likeness` is the result of `prepare`. The logit by text is scale <g, e> + class_scale
        log sum_k p_k exp(sharpness <n_k, e>): a sharp mixture over single class names finds the
        right class among a thousand, their mean direction does not.
        """
        total: Tensor | float = 0.0
        if self.scale is not None:
            total = self.scale * (F.normalize(photo.feature, dim=-1) @ labels.text.t())
        if likeness is not None and photo.classes is not None:
            total = total + self.class_scale * (photo.classes @ likeness.t()).log() + self.offset
        return total, 0.0 if photo.own is None else photo.own @ labels.own.t()  # <own, U f>
