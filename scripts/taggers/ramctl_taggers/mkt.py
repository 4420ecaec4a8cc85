"""MKT: CLIP's two encoders after the authors' two training stages.

Source: "Open-Vocabulary Multi-Label Classification via Multi-Modal Knowledge Transfer" and the
layout of its authors' checkpoints. B photos, N patches, L labels, E width of the shared space.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform  # type: ignore[attr-defined]
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ramctl.checkpoints.transformers_folder import load_tokenizer
from ramctl.checkpoints.weights import (
    SUFFIXES,
    count_blocks,
    load_strictly,
    read_checkpoint,
    tensors_of,
)
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.peers.peer import Peer, Pixels, Scores, from_cosine, token_batches
from ramctl.model.device import Runtime
from ramctl_taggers import transformed

_PROMPT = "There is a {} in the scene"  # authors' PromptLearner
_BEST_PATCHES = 16  # --topk of the authors' training and evaluation
_HEAD_WIDTH = 64  # of one attention head, in all of CLIP's transformers
# Weights that only one of the two checkpoints has.
_IMAGE_MARK, _TEXT_MARK = "projection_dist", "token_embedding.weight"
_UNUSED = re.compile(r"projection\.fc\d\.")  # a layer of stage one that no score goes through


class MKTPeer(Peer):
    """Score: (1 + s) / 2; s is the mean of two similarities, of the photo and its 16 best patches.

    Each is scaled to length 1 *over the labels*: it depends on which labels were given. `folder`
    holds the checkpoints of both stages and CLIP's tokenizer.
    """

    kind = "mkt"

    def __init__(self, folder: Path, labels: Sequence[str], runtime: Runtime) -> None:
        folder = folder if folder.is_dir() else folder.parent
        super().__init__(folder, labels, runtime)
        image, text = _both_stages(folder)
        self._image = _image_encoder(image, folder).to(runtime.device)
        self._texts = self._embed(_text_encoder(text, folder).to(runtime.device), folder)  # (L, E)
        self._transform = create_transform(
            input_size=self._image.config.image_size, interpolation="bicubic", crop_pct=224 / 256
        )

    @torch.inference_mode()
    def _embed(self, encoder: Any, folder: Path) -> Tensor:
        tokenizer = load_tokenizer(folder)
        longest = encoder.config.max_position_embeddings
        rows = []
        for tokens in token_batches(tokenizer, _PROMPT, self.labels, self._runtime, padding=True):
            if tokens["input_ids"].shape[1] > longest:
                raise UsageProblem(f"a label is longer than the {longest} tokens that CLIP reads")
            with self._runtime.precision():
                rows.append(encoder(**tokens).text_embeds.float())
        return torch.cat(rows)

    @torch.inference_mode()
    def score_batch(self, photos: Sequence[Pixels]) -> Scores:
        pixels = transformed(self._transform, photos, self._runtime)
        with self._runtime.precision():
            vision = self._image.vision_model
            tokens = vision(pixel_values=pixels).last_hidden_state
            # CLIP's last norm is on the first token only; MKT applies it to the patches too.
            shared = self._image.visual_projection(vision.post_layernorm(tokens))
        similar = shared.float() @ self._texts.T  # (B, 1 + N, L)
        patches = similar[:, 1:].topk(_BEST_PATCHES, dim=1).values.mean(1)
        both = [nn.functional.normalize(part, dim=-1) for part in (patches, similar[:, 0])]
        return from_cosine(sum(both) / 2)


def _both_stages(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The image encoder's weights (stage one) and the text encoder's (stage two)."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    files = [tensors_of(read_checkpoint(path)) for path in paths]
    marks = (_IMAGE_MARK, _TEXT_MARK)
    found = {mark: weights for weights in files for mark in marks if mark in weights}
    for mark, stage in ((_IMAGE_MARK, "first (image encoder)"), (_TEXT_MARK, "second (text)")):
        if mark not in found:
            raise RunProblem(f"{folder}: no checkpoint of MKT's {stage} stage, which has {mark}")
    return found[_IMAGE_MARK], found[_TEXT_MARK]


def _image_encoder(weights: Mapping[str, Tensor], where: Path) -> Any:
    weights = {name: tensor for name, tensor in weights.items() if not _UNUSED.match(name)}
    width, _, patch, _ = weights["conv1.weight"].shape
    side = round((len(weights["positional_embedding"]) - 1) ** 0.5)
    config = CLIPVisionConfig(
        hidden_size=width,
        projection_dim=weights[_IMAGE_MARK].shape[1],
        patch_size=patch,
        image_size=side * patch,
        **_transformer_sizes(weights, width),
    )
    if side * side < _BEST_PATCHES:
        raise RunProblem(f"{where}: {side * side} patches, fewer than the {_BEST_PATCHES} scored")
    names = {
        "class_embedding": "vision_model.embeddings.class_embedding",
        "conv1.": "vision_model.embeddings.patch_embedding.",
        "positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "ln_pre.": "vision_model.pre_layrnorm.",
        "ln_post.": "vision_model.post_layernorm.",
        "transformer.resblocks.": "vision_model.encoder.layers.",
    }
    renamed = _rename(weights, names, projection=(_IMAGE_MARK, "visual_projection.weight"))
    return load_strictly(CLIPVisionModelWithProjection(config), renamed, where).eval()


def _text_encoder(weights: Mapping[str, Tensor], where: Path) -> Any:
    vocabulary, width = weights[_TEXT_MARK].shape
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        projection_dim=weights["text_projection"].shape[1],
        max_position_embeddings=len(weights["positional_embedding"]),
        eos_token_id=vocabulary - 1,  # CLIP's <|endoftext|> is its last token
        **_transformer_sizes(weights, width),
    )
    names = {
        "token_embedding.": "text_model.embeddings.token_embedding.",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "ln_final.": "text_model.final_layer_norm.",
        "transformer.resblocks.": "text_model.encoder.layers.",
    }
    renamed = _rename(weights, names, projection=("text_projection", "text_projection.weight"))
    return load_strictly(CLIPTextModelWithProjection(config), renamed, where).eval()


def _transformer_sizes(weights: Mapping[str, Tensor], width: int) -> dict[str, Any]:
    return {
        "num_hidden_layers": count_blocks(weights, "transformer.resblocks."),
        "num_attention_heads": max(width // _HEAD_WIDTH, 1),
        "intermediate_size": len(weights["transformer.resblocks.0.mlp.c_fc.weight"]),
        "hidden_act": "quick_gelu",
    }


def _rename(
    weights: Mapping[str, Tensor], names: Mapping[str, str], *, projection: tuple[str, str]
) -> dict[str, Tensor]:
    """CLIP's weights under transformers' names instead of OpenAI's."""
    inside = {
        ".ln_1.": ".layer_norm1.",
        ".ln_2.": ".layer_norm2.",
        ".mlp.c_fc.": ".mlp.fc1.",
        ".mlp.c_proj.": ".mlp.fc2.",
        ".attn.out_proj.": ".self_attn.out_proj.",
    }
    renamed = {}
    for name, tensor in weights.items():
        if name == projection[0]:
            renamed[projection[1]] = tensor.T.contiguous()
            continue
        start = next((old for old in names if name.startswith(old)), "")
        new = names.get(start, "") + name.removeprefix(start)
        if ".attn.in_proj_" in new:
            stem, kind = new.split(".attn.in_proj_")
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{stem}.self_attn.{part}_proj.{kind}"] = piece
            continue
        for old, other in inside.items():
            new = new.replace(old, other)
        renamed[new] = tensor.float()
    return renamed
