"""The authors' Grounding DINO checkpoints, run by the package groundingdino-py.

The model's sizes are read off the weights. Only the text encoder's tokenizer must come with the
checkpoint, in a folder `bert-base-uncased` beside it or in its own folder.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from PIL import Image
from torch import Tensor, nn

from ramctl.checkpoints.weights import (
    count_blocks,
    folder_of,
    load_strictly,
    only_weight_file,
    read_checkpoint,
    tensors_of,
)
from ramctl.device import Runtime
from ramctl.errors import RunProblem
from ramctl.peers.base import Photo
from ramctl.pretrained.transformers_folder import load_tokenizer, read_config

_TEXT_FOLDER = "bert-base-uncased"
# Left over from training, and a buffer that newer BERTs do not store.
_UNUSED = ("label_enc.weight", "bert.embeddings.position_ids")
# By the width of the first stage and the side of the attention window.
_BACKBONES = {
    (96, 7): "swin_T_224_1k",
    (128, 7): "swin_B_224_22k",
    (128, 12): "swin_B_384_22k",
    (192, 7): "swin_L_224_22k",
    (192, 12): "swin_L_384_22k",
}


class OriginalBackend:
    """An original `.pth`, or a folder that holds one."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        checkpoint = only_weight_file(path, (".pth",))
        weights = tensors_of(read_checkpoint(checkpoint))
        text_folder = _text_folder(folder_of(path))
        self._runtime = runtime
        self.tokenizer = load_tokenizer(text_folder)
        model = _build(weights, text_folder, self.tokenizer, checkpoint)
        loaded = load_strictly(model, weights, checkpoint, unused=_UNUSED)
        self._model = loaded.eval().to(runtime.device)
        import groundingdino.datasets.transforms as steps  # here, because the package is an extra

        # Source: the authors' demo.
        normalise = steps.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        resize = steps.RandomResize([800], max_size=1333)
        self._transform = steps.Compose([resize, steps.ToTensor(), normalise])

    def prepare(self, photo: Photo) -> Tensor:
        return self._transform(Image.fromarray(photo), None)[0].to(self._runtime.device)

    def detect(self, prepared: Tensor, text: str) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings(action="ignore"):  # of libraries newer than the package
            outputs = self._model(prepared[None], captions=[text])
        return outputs["pred_logits"][0].sigmoid(), outputs["pred_boxes"][0]


def with_phrase_mask(bert_model: Any) -> Any:
    """The BERT, which now also takes a mask (B, T, T) that is true where a token may look.

    The package's own wrapper needs functions that transformers 5 no longer has.
    """

    def make_additive(bert: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        allowed = named["attention_mask"]
        if allowed.dim() == 3:
            # The eager attention would add a boolean mask as 0 and 1.
            blocked = torch.finfo(bert.dtype).min * (~allowed).to(bert.dtype)
            named["attention_mask"] = blocked[:, None]  # (B, 1, T, T)
        return inputs, named

    bert_model.register_forward_pre_hook(make_additive, with_kwargs=True)
    return bert_model


def _build(
    weights: Mapping[str, Tensor], text_folder: Path, tokenizer: Any, checkpoint: Path
) -> nn.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            from groundingdino.models import build_model
            from groundingdino.models.GroundingDINO import groundingdino
    except ImportError as error:
        raise RunProblem(
            f"{checkpoint}: an original checkpoint needs the extra ramctl[grounding-dino]: {error}"
        ) from error
    settings, bert = _settings(weights, checkpoint), _bert(weights, text_folder)
    # The package would look for a text encoder on the hub, and wrap it in its own way.
    with mock.patch.multiple(
        groundingdino,
        BertModelWarper=with_phrase_mask,
        get_tokenlizer=SimpleNamespace(
            get_tokenlizer=lambda _: tokenizer, get_pretrained_language_model=lambda _: bert
        ),
    ):
        return build_model(settings)


def _settings(weights: Mapping[str, Tensor], checkpoint: Path) -> SimpleNamespace:
    """The package's own settings with the sizes that the checkpoint has."""
    from groundingdino.config import GroundingDINO_SwinT_OGC as defaults

    try:
        stem = weights["backbone.0.patch_embed.proj.weight"]
        table = weights["backbone.0.layers.0.blocks.0.attn.relative_position_bias_table"]
        sizes = {
            "backbone": _BACKBONES[(len(stem), (round(len(table) ** 0.5) + 1) // 2)],
            "hidden_dim": len(weights["feat_map.weight"]),
            "num_queries": len(weights["transformer.tgt_embed.weight"]),
            "dim_feedforward": len(weights["transformer.encoder.layers.0.linear1.weight"]),
        }
    except KeyError as error:
        raise RunProblem(f"{checkpoint}: not a Grounding DINO with a Swin ({error})") from error
    return SimpleNamespace(
        **{name: value for name, value in vars(defaults).items() if not name.startswith("_")}
        | sizes
        | {
            "enc_layers": count_blocks(weights, "transformer.encoder.layers."),
            "dec_layers": count_blocks(weights, "transformer.decoder.layers."),
            "use_checkpoint": False,
            "use_transformer_ckpt": False,
        }
    )


def _bert(weights: Mapping[str, Tensor], text_folder: Path) -> nn.Module:
    """A BERT of the checkpoint's size; its weights come with the rest."""
    from transformers import BertConfig, BertModel

    vocabulary, width = weights["bert.embeddings.word_embeddings.weight"].shape
    config: dict[str, Any] = {"num_attention_heads": width // 64}
    if (text_folder / "config.json").is_file():
        config |= read_config(text_folder)
    config |= {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(weights, "bert.encoder.layer."),
        "intermediate_size": len(weights["bert.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(weights["bert.embeddings.position_embeddings.weight"]),
    }
    return BertModel(BertConfig(**config))


def _text_folder(folder: Path) -> Path:
    for candidate in (folder / _TEXT_FOLDER, folder):
        if any((candidate / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
            return candidate
    raise RunProblem(
        f"{folder}: no tokenizer of the text encoder, here or in a folder {_TEXT_FOLDER} "
        "(tokenizer.json or vocab.txt)"
    )
