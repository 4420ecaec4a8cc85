"""The image encoder: photos to tokens, by any timm backbone.

B batch, T tokens, C channels of the backbone.
"""

import math
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.preset import EncoderConfig

BatchNorm = nn.modules.batchnorm._BatchNorm


class ImageEncoder(nn.Module):
    """A timm backbone whose feature map becomes a sequence of tokens, row by row.

    With `mean_token` their mean comes first: RAM's "cls" token. Weights are random; UsageProblem
    when timm cannot build the backbone.
    """

    def __init__(self, config: EncoderConfig, image_size: int) -> None:
        super().__init__()
        self.backbone = _build_backbone(config, image_size)
        self.mean_token = config.mean_token
        self.freeze_batchnorm = config.freeze_batchnorm
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        # How many tokens come before those of the photo's grid.
        self.extra_tokens = self.mean_token + getattr(self.backbone, "num_prefix_tokens", 0)
        self.frozen_stages = 0
        self.frozen: list[nn.Module] = []

    def forward(self, photos: Tensor) -> Tensor:
        """Tokens (B, T, C) of photos (B, 3, H, W), or of their `frozen_features` (B, N, K).

        T includes the mean token and the tokens that the backbone adds.
        """
        backbone = self.backbone
        if photos.dim() == 4:
            return self._tokens(backbone.forward_features(photos))
        if not self.frozen_stages:
            return photos
        side = math.isqrt(photos.shape[1])
        maps = photos.transpose(1, 2).unflatten(2, (side, side))
        for stage in backbone.blocks[self.frozen_stages :]:
            maps = stage(maps)
        return self._tokens(backbone.bn2(backbone.conv_head(maps)))

    def frozen_features(self, photos: Tensor) -> Tensor:
        """The part of the forward pass that training does not change, computed once a photo.

        The output of an EfficientNet's frozen stages (B, N, K); otherwise the tokens.
        """
        if not self.frozen_stages:
            return self(photos)
        backbone = self.backbone
        maps = backbone.bn1(backbone.conv_stem(photos))
        for stage in backbone.blocks[: self.frozen_stages]:
            maps = stage(maps)
        return maps.flatten(2).transpose(1, 2)

    def freeze(self, stages: int) -> None:
        """Freeze an EfficientNet's stem and first stages; UsageProblem for another backbone."""
        backbone = self.backbone
        # The last layers of other families, as of MobileNetV3, come after the pooling.
        if not hasattr(backbone, "bn2") or stages > len(backbone.blocks):
            raise UsageProblem(f"training.frozen_stages = {stages}: not stages of this backbone")
        self.frozen_stages = stages
        self.frozen = [backbone.conv_stem, backbone.bn1, *backbone.blocks[:stages]]
        for module in self.frozen:
            module.requires_grad_(False)

    def _tokens(self, tokens: Tensor) -> Tensor:
        if tokens.dim() == 4:
            if not self.channels_last:
                tokens = tokens.permute(0, 2, 3, 1)
            tokens = tokens.flatten(1, 2)
        if self.mean_token:
            tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return tokens

    def train(self, mode: bool = True) -> "ImageEncoder":
        """As in torch, but frozen stages and batch norms stay in evaluation mode."""
        super().train(mode)
        norms = [m for m in self.modules() if self.freeze_batchnorm and isinstance(m, BatchNorm)]
        for module in [*self.frozen, *norms]:
            module.eval()
        return self


def _build_backbone(config: EncoderConfig, image_size: int) -> Any:  # timm has no base class
    options = dict(config.options)
    if config.image_size_option:
        options["img_size"] = image_size
    if config.window_size:
        options["window_size"] = config.window_size
    try:
        return timm.create_model(config.backbone, pretrained=False, num_classes=0, **options)
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageProblem(f"model.encoder.backbone {config.backbone}: {error}") from error
