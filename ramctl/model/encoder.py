"""The image encoder: photos to tokens, by any timm backbone.

B batch, T tokens, C channels of the backbone.
"""

import math
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ramctl.errors import UsageProblem
from ramctl.model.config import EncoderConfig


class ImageEncoder(nn.Module):
    """A timm backbone whose feature map becomes a sequence of tokens, row by row.

    With `mean_token` their mean comes first: RAM's "cls" token. Weights are random; UsageProblem
    when timm does not know the backbone, or its width is another.
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

    def forward(self, photos: Tensor) -> Tensor:
        """(B, T, C) of photos (B, 3, H, W), or of their `frozen_features` (B, N, K).

        T includes the mean token and those that the backbone adds itself.
        """
        if photos.dim() == 4:
            return self._tokens(self.backbone.forward_features(photos))
        return self._tokens(self._upper(photos)) if self.frozen_stages else photos

    def frozen_features(self, photos: Tensor) -> Tensor:
        """The output of the frozen stages (B, N, K), which training stores once a photo.

        The finished tokens where the whole encoder, or none of it, is frozen.
        """
        if not self.frozen_stages:
            return self(photos)
        backbone = self.backbone
        maps = backbone.bn1(backbone.conv_stem(photos))
        for stage in backbone.blocks[: self.frozen_stages]:
            maps = stage(maps)
        return maps.flatten(2).transpose(1, 2)

    def freeze(self, stages: int) -> None:
        """Freeze the stem and the first stages; UsageProblem unless it is an EfficientNet."""
        blocks = getattr(self.backbone, "blocks", ())
        if not hasattr(self.backbone, "conv_stem") or not 0 < stages <= len(blocks):
            raise UsageProblem(
                f"training.frozen_stages = {stages}: only EfficientNets, and not more than their "
                "stages, can be frozen in part"
            )
        if not self.freeze_batchnorm:
            raise UsageProblem("training.frozen_stages needs model.encoder.freeze_batchnorm")
        self.frozen_stages = stages
        for module in (self.backbone.conv_stem, self.backbone.bn1, *blocks[:stages]):
            module.requires_grad_(False)

    def frozen_weights(self) -> dict[str, Tensor]:
        """The weights that `frozen_features` depends on, by name."""
        weights = self.state_dict()
        if not self.frozen_stages:
            return weights
        lower: tuple[str, ...] = ("backbone.conv_stem.", "backbone.bn1.")
        lower += tuple(f"backbone.blocks.{index}." for index in range(self.frozen_stages))
        return {name: tensor for name, tensor in weights.items() if name.startswith(lower)}

    def _upper(self, kept: Tensor) -> Tensor:
        side = math.isqrt(kept.shape[1])
        maps = kept.transpose(1, 2).unflatten(2, (side, side))
        backbone = self.backbone
        for stage in backbone.blocks[self.frozen_stages :]:
            maps = stage(maps)
        return backbone.bn2(backbone.conv_head(maps))

    def _tokens(self, tokens: Tensor) -> Tensor:
        if tokens.dim() == 4:
            if not self.channels_last:
                tokens = tokens.permute(0, 2, 3, 1)
            tokens = tokens.flatten(1, 2)
        if self.mean_token:
            tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return tokens

    def train(self, mode: bool = True) -> "ImageEncoder":
        """As in torch, but frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def _build_backbone(config: EncoderConfig, image_size: int) -> Any:  # timm has no base class
    options = dict(config.options)
    if config.image_size_option:
        options["img_size"] = image_size
    if config.window_size:
        options["window_size"] = config.window_size
    try:
        backbone = timm.create_model(config.backbone, pretrained=False, num_classes=0, **options)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UsageProblem(f"model.encoder.backbone {config.backbone}: {error}") from error
    if backbone.num_features != config.width:
        raise UsageProblem(
            f"model.encoder.width is {config.width}, {config.backbone} has {backbone.num_features}"
        )
    return backbone
