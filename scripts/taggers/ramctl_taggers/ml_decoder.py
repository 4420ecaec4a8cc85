"""ML-Decoder: a timm backbone under timm's ML-Decoder head, with its own classes.

Source: "ML-Decoder: Scalable and Versatile Classification Head". B photos, N tokens, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import create_transform, resolve_data_config  # type: ignore[attr-defined]
from timm.layers.ml_decoder import MLDecoder
from timm.models.tresnet import checkpoint_filter_fn
from torch import Tensor, nn

from ramctl.checkpoints.transformers_folder import read_config
from ramctl.checkpoints.weights import (
    SUFFIXES,
    count_blocks,
    load_strictly,
    read_checkpoint,
    tensors_of,
)
from ramctl.errors import RunProblem
from ramctl.inference.peers.peer import Pixels, Scores
from ramctl.model.device import Runtime
from ramctl_taggers import transformed
from ramctl_taggers.closed_set import ClosedSetPeer, class_names

# Tells the head's weights from the backbone's: they lie below the attribute that timm replaces,
# which is `head`, `fc` or `classifier`.
_LANDMARK = "decoder.layers.0.multihead_attn.in_proj_weight"
# By the blocks of the third stage; the authors' checkpoints do not name their backbone.
_TRESNETS = {11: "tresnet_m", 23: "tresnet_l"}
# Source: the authors' infer.py: 448 x 448, the photo squashed into it, values in [0, 1].
_AUTHORS_INPUT = {
    "input_size": (3, 448, 448),
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "interpolation": "bilinear",
    "crop_pct": 1.0,
    "crop_mode": "squash",
}


@dataclass(frozen=True, slots=True)
class _Parts:
    """A checkpoint taken apart."""

    architecture: str
    model_args: dict[str, Any]  # timm's, to a backbone of another size
    names: list[str]  # (C)
    preprocessing: dict[str, Any]
    backbone: dict[str, Tensor]
    head: dict[str, Tensor]


class MLDecoderPeer(ClosedSetPeer):
    """Score: the sigmoid probability of the class.

    `path` is a folder as timm writes it (config.json with `architecture`, `label_names` and
    `pretrained_cfg`, and a weights file), or a checkpoint of the authors with its `idx_to_class`.
    """

    kind = "ml-decoder"

    def __init__(self, path: Path, labels: Sequence[str], runtime: Runtime) -> None:
        parts = _take_apart(path)
        super().__init__(path, parts.names, labels, runtime)
        self._backbone, self._head = (
            part.eval().to(runtime.device) for part in _build(parts, path)
        )
        config = resolve_data_config(pretrained_cfg=parts.preprocessing)
        self._transform = create_transform(**config)

    @torch.inference_mode()
    def _class_scores(self, photos: Sequence[Pixels]) -> Scores:
        pixels = transformed(self._transform, photos, self._runtime)
        with self._runtime.precision():
            features = self._backbone.forward_features(pixels)
            if features.dim() == 4 and features.shape[1] != self._head.embed_standart.in_features:
                features = features.flatten(1, 2)  # (B, H, W, width) -> (B, N, width)
            logits = self._head(features)  # (B, C)
        return logits.float().sigmoid().cpu().numpy()


class _Layers(nn.Module):
    """timm's decoder layers one after another.

    timm puts them into torch's own container, which since torch 2.0 asks its layers for a
    self-attention; these have none.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        for layer in self.layers:
            queries = layer(queries, memory)
        return queries


def _build(parts: _Parts, path: Path) -> tuple[Any, Any]:
    """The backbone and the head on the tokens of its feature map."""
    try:
        backbone = timm.create_model(parts.architecture, num_classes=0, **parts.model_args)
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunProblem(f"{path}: no backbone {parts.architecture!r}: {error}") from error
    groups, decoder_width, _ = parts.head["duplicate_pooling"].shape
    head: Any = MLDecoder(
        num_classes=len(parts.head["duplicate_pooling_bias"]),
        num_of_groups=groups,
        decoder_embedding=decoder_width,
        initial_num_features=parts.head["embed_standart.weight"].shape[1],
    )
    load_strictly(backbone, parts.backbone, path)
    load_strictly(head, parts.head, path)
    head.decoder = _Layers(head.decoder.layers)
    return backbone, head


def _only_weight_file(path: Path) -> Path:
    """The only weight file of a folder, or the file itself; RunProblem without exactly one."""
    files = [path] if path.is_file() else [f for f in path.iterdir() if f.suffix in SUFFIXES]
    if len(files) != 1:
        raise RunProblem(f"{path}: expected one of {', '.join(SUFFIXES)}, found {len(files)}")
    return files[0]


def _take_apart(path: Path) -> _Parts:
    file = _only_weight_file(path)
    content = read_checkpoint(file)
    backbone, head = _split(tensors_of(content), file)
    if path.is_dir() and (path / "config.json").is_file():
        config = read_config(path)
        names, architecture = config.get("label_names"), config.get("architecture")
        preprocessing, arguments = config.get("pretrained_cfg", {}), config.get("model_args", {})
        if not isinstance(architecture, str) or not isinstance(names, list):
            raise RunProblem(f"{path / 'config.json'}: no architecture or no label_names")
    else:
        names = class_names(content, "idx_to_class", file)
        architecture = _authors_tresnet(backbone, file)
        preprocessing, arguments = _AUTHORS_INPUT, {}
    if len(names) != len(head["duplicate_pooling_bias"]):
        raise RunProblem(f"{path}: {len(names)} class names for another number of classes")
    if architecture.startswith("tresnet"):
        backbone = checkpoint_filter_fn(backbone, None)
    return _Parts(architecture, arguments, list(map(str, names)), preprocessing, backbone, head)


def _split(
    weights: Mapping[str, Tensor], file: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's weights, and the head's by timm's names."""
    prefix = next((k.removesuffix(_LANDMARK) for k in weights if k.endswith(_LANDMARK)), None)
    if prefix is None:
        raise RunProblem(f"{file}: has no ML-Decoder head")
    backbone, head = {}, {}
    for name, tensor in weights.items():
        if not name.startswith(prefix):
            backbone[name] = tensor
            continue
        own = name.removeprefix(prefix)
        # The authors keep everything below `decoder`, timm only the attention layers.
        head[own if own.startswith("decoder.layers.") else own.removeprefix("decoder.")] = tensor
    missing = {"embed_standart.weight", "duplicate_pooling", "duplicate_pooling_bias"} - set(head)
    if missing:
        raise RunProblem(f"{file}: the ML-Decoder head lacks {min(missing)}")
    return backbone, head


def _authors_tresnet(backbone: Mapping[str, Tensor], file: Path) -> str:
    n_blocks = count_blocks(backbone, "body.layer3.")
    if n_blocks not in _TRESNETS:
        raise RunProblem(f"{file}: not a TResNet-M or -L; a config.json must name the backbone")
    return _TRESNETS[n_blocks]
