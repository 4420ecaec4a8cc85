"""Convert the authors' checkpoints of RAM, RAM++ and Tag2Text: read sizes, rename tensors.

Only this module knows the authors' names of tensors. Source:
github.com/xinyu1205/recognize-anything (Apache-2.0); facts of it, no code.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor

from ramctl.checkpoints.weights import check_shapes, count_blocks, read_checkpoint, tensors_of
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import CaptioningConfig, EncoderConfig, ModelConfig, Preset, load_preset
from ramctl.model.ram import RAM

Architecture = Literal["ram", "ram-plus", "tag2text"]
Tensors = Mapping[str, Tensor]

_BASE_PRESETS: dict[Architecture, tuple[str, ...]] = {
    "ram": ("ram-swin-l", "ram-swin-b"),
    "ram-plus": ("ram-plus-swin-l",),
    "tag2text": ("tag2text-swin-b",),
}
_SWINS = {128: "base", 192: "large"}  # by the width of a patch

# Keys that distinguish the three; RAM++ has all of RAM's.
_MARKS: dict[Architecture, tuple[str, ...]] = {
    "ram-plus": ("label_embed", "wordvec_proj.weight", "reweight_scale"),
    "ram": ("label_embed", "wordvec_proj.weight"),
    "tag2text": ("label_embed.weight", "fc.W"),
}

# Index and mask buffers, which are rebuilt from the sizes or not used.
_DERIVABLE = re.compile(r"(relative_position_index|attn_mask|position_ids)$")

_ATTENTION_NAMES = {"output": "output.dense", "norm": "output.LayerNorm"} | {
    part: f"self.{part}" for part in ("query", "key", "value")
}
_LAYER_NAMES = {
    f"{kind}_attention.{part}": f"{official}.{name}"
    for kind, official in (("self", "attention"), ("cross", "crossattention"))
    for part, name in _ATTENTION_NAMES.items()
} | {
    "feed_forward.expand": "intermediate.dense",
    "feed_forward.contract": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}

_PREFIXES = {
    "encoder.backbone.": "visual_encoder.",
    "token_projection.": "image_proj.",
    "label_queries.projection.": "wordvec_proj.",
    "weighting.log_scale": "reweight_scale",
    "tag_decoder.shared_head.": "fc.",
    "tag_decoder.layers.": "tagging_head.encoder.layer.",
    "captioning.tag_encoder.layers.": "tag_encoder.encoder.layer.",
    "captioning.tag_encoder.embedding.": "tag_encoder.embeddings.",
    "captioning.decoder.layers.": "text_decoder.bert.encoder.layer.",
    "captioning.decoder.embedding.": "text_decoder.bert.embeddings.",
    "captioning.decoder.word_bias": "text_decoder.cls.predictions.bias",
    "captioning.decoder.transform.": "text_decoder.cls.predictions.transform.dense.",
    "captioning.decoder.norm.": "text_decoder.cls.predictions.transform.LayerNorm.",
    "labels.head": "fc.W",
    "labels.bias": "fc.b",
}

_EMBEDDINGS = {"words": "word_embeddings", "positions": "position_embeddings", "norm": "LayerNorm"}

# Tensors that the tag encoder's first layers share with the tag decoder, under either name.
_SHARED_LAYER = re.compile(
    r"(tag_encoder|tagging_head)\.(encoder\.layer\.(\d+)\.(?:crossattention|intermediate|output)\..+)"
)
_SHARED_LAYERS = 2  # in a file without the tag decoder's names
# The word matrix of the language model's last layer is its word embedding, under a second name.
_WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
_COPIES_OF_WORDS = {
    "text_decoder.cls.predictions.decoder.weight": _WORDS,
    "text_decoder.cls.predictions.decoder.bias": "text_decoder.cls.predictions.bias",
}
_CAPTIONING = ("tag_encoder.", "text_decoder.")


def read_official(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an authors' file, shared ones under each of their names.

    A file may hold shared tensors once. RunProblem as from `read_checkpoint`, and for a file
    without tensors.
    """
    tensors = tensors_of(read_checkpoint(path))
    if not tensors:
        raise RunProblem(f"{path}: no table of tensors in the file, at top level or as `model`")
    # Older files have another name for the tag decoder.
    tensors = {re.sub(r"^vision_multi\.", "tagging_head.", key): t for key, t in tensors.items()}
    twins = _COPIES_OF_WORDS | {copy: name for name, copy in _COPIES_OF_WORDS.items()}
    copies = {twins[name]: tensor for name, tensor in tensors.items() if name in twins}
    if any(name.startswith("tag_encoder.") for name in tensors):
        layers = count_blocks(tensors, "tagging_head.encoder.layer.") or _SHARED_LAYERS
        other = {"tag_encoder": "tagging_head", "tagging_head": "tag_encoder"}
        for name, tensor in tensors.items():
            shared = _SHARED_LAYER.fullmatch(name)
            if shared and int(shared[3]) < layers:
                copies[f"{other[shared[1]]}.{shared[2]}"] = tensor
    return copies | tensors


def convert_official(arch: Architecture, tensors: Tensors, n_labels: int) -> tuple[Preset, RAM]:
    """Build the model with the authors' weights, and the preset that describes it.

    `n_labels` is the length of the tag list. RunProblem names missing, unknown and mis-shaped keys,
    tied copies that differ, or a tag list that does not fit.
    """
    try:
        preset = infer_preset(arch, tensors)
        model = build_official(preset, tensors, n_labels)
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError, UsageProblem) as error:
        missing = f"missing {error.args[0]}" if isinstance(error, KeyError) else error
        raise RunProblem(f"not a {arch} checkpoint: {missing}") from error
    targets = official_targets(model)
    check_official_keys(targets, tensors)
    written: dict[int, str] = {}
    with torch.no_grad():
        for name, target in targets.items():
            source = tensors[name].reshape(target.shape)
            first = written.setdefault(id(target), name)
            if first == name:
                target.copy_(source)
            elif not torch.equal(source, tensors[first].reshape(target.shape)):
                raise RunProblem(f"{name} must equal {first}: the authors' models share them")
    return preset, model


def infer_preset(architecture: Architecture, tensors: Tensors) -> Preset:
    """Take all sizes from the tensors, and the rest from the authors' preset."""
    fitting = (name for name, marks in _MARKS.items() if all(mark in tensors for mark in marks))
    actual = next(fitting, None)
    if actual is None:
        missing = ", ".join(key for key in _MARKS[architecture] if key not in tensors)
        raise RunProblem(f"not a {architecture} checkpoint: missing {missing}")
    if actual != architecture:
        remedy = f"convert it with --arch {actual}"
        raise RunProblem(f"a {actual} checkpoint, not {architecture}: {remedy}")
    bases = [load_preset(name) for name in _BASE_PRESETS[architecture]]
    width = len(tensors["visual_encoder.norm.weight"])
    base = next((preset for preset in bases if preset.model.encoder.width == width), bases[0])
    decoder = _layer_sizes(tensors, "tagging_head.encoder.layer.", "layers")
    model = ModelConfig(
        _infer_encoder(tensors, base.model.encoder),
        dataclasses.replace(base.model.labels, width=_label_embedding(tensors).shape[1]),
        dataclasses.replace(base.model.tag_decoder, **decoder),
        None,
        _infer_captioning(tensors, base.model.captioning),
    )
    # The last stage is a single window, and the photo's sides are halved five times before it.
    size = 32 * model.encoder.window_size
    preprocess = dataclasses.replace(base.preprocess, size=size, loader="official")
    return dataclasses.replace(base, model=model, preprocess=preprocess)


def build_official(preset: Preset, tensors: Tensors, n_labels: int) -> RAM:
    """Build the model of `infer_preset` with random weights for a tag list of `n_labels`."""
    rows = len(_label_embedding(tensors))
    described = preset.model.labels.kind == "descriptions"
    if described and rows % n_labels:
        raise RunProblem(f"{rows} descriptions do not divide into {n_labels} tags")
    if not described and rows != n_labels:
        raise RunProblem(f"the checkpoint has {rows} labels, the tag list {n_labels}")
    words = tensors.get(_WORDS)
    return build_ram(
        preset.model,
        image_size=preset.preprocess.size,
        n_labels=n_labels,
        vocabulary=0 if words is None else len(words),
        description_counts=[rows // n_labels] * n_labels,
    )


def official_targets(model: RAM) -> dict[str, Tensor]:
    """Map each of the authors' keys to the model's tensor; tied keys share a tensor."""
    targets = {
        _official_name(name, model): tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if name != "labels.counts" and tensor.numel()
    }
    copies = _COPIES_OF_WORDS.items()
    return targets | {copy: targets[name] for copy, name in copies if name in targets}


def check_official_keys(targets: Tensors, tensors: Tensors) -> None:
    """Raise RunProblem unless every key is used or derivable and every size is right."""
    shapes = {}
    for name, tensor in tensors.items():
        target = targets.get(name)
        if target is not None and tensor.squeeze().shape == target.squeeze().shape:
            shapes[name] = list(target.shape)  # `fc.W` and `fc.b` of Tag2Text have a leading 1
        elif target is not None or not _DERIVABLE.search(name):
            shapes[name] = list(tensor.shape)
    check_shapes("the checkpoint does not fit", targets, shapes)


def _official_name(name: str, model: RAM) -> str:
    if name == "labels.text":
        return "label_embed.weight" if model.labels.text.requires_grad else "label_embed"
    prefix, official = next(pair for pair in _PREFIXES.items() if name.startswith(pair[0]))
    rest = name.removeprefix(prefix)
    if prefix == "encoder.backbone.":
        # timm merges patches at the start of a stage, the authors at the end of the previous one.
        rest = re.sub(
            r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", rest
        )
    elif prefix.endswith("layers."):
        index, block, part, kind = rest.split(".")
        rest = f"{index}.{_LAYER_NAMES[f'{block}.{part}']}.{kind}"
    elif prefix.endswith("embedding."):
        part, kind = rest.split(".")
        rest = f"{_EMBEDDINGS[part]}.{kind}"
    return official + rest


def _infer_encoder(tensors: Tensors, base: EncoderConfig) -> EncoderConfig:
    n_stages = count_blocks(tensors, "visual_encoder.layers.")
    depths = [count_blocks(tensors, f"visual_encoder.layers.{i}.blocks.") for i in range(n_stages)]
    tables = [
        tensors[f"visual_encoder.layers.{i}.blocks.0.attn.relative_position_bias_table"]
        for i in range(n_stages)
    ]
    embed_dim = len(tensors["visual_encoder.patch_embed.proj.weight"])
    window_size = (round(len(tables[0]) ** 0.5) + 1) // 2  # tables have (2w - 1)^2 rows
    name = f"swin_{_SWINS.get(embed_dim)}_patch4_window{window_size}_{32 * window_size}"
    heads = [table.shape[1] for table in tables]
    projection = tensors.get("image_proj.weight")
    return dataclasses.replace(
        base,
        backbone=name if timm.is_model(name) else base.backbone,
        width=len(tensors["visual_encoder.norm.weight"]),
        options=base.options | {"embed_dim": embed_dim, "depths": depths, "num_heads": heads},
        window_size=window_size,
        projection=0 if projection is None else len(projection),
    )


def _label_embedding(tensors: Tensors) -> Tensor:
    learnt = tensors.get("label_embed.weight")
    return tensors["label_embed"] if learnt is None else learnt


def _layer_sizes(tensors: Tensors, prefix: str, number: str) -> dict[str, Any]:
    """The widths of BERT layers, and their count under the name `number`."""
    # No shape shows the number of heads; the base preset has that of all published models.
    ffn_width, width = tensors[f"{prefix}0.intermediate.dense.weight"].shape
    return {"width": width, "ffn_width": ffn_width, number: count_blocks(tensors, prefix)}


def _infer_captioning(tensors: Tensors, base: CaptioningConfig | None) -> CaptioningConfig | None:
    if base is None or not any(name.startswith(_CAPTIONING) for name in tensors):
        return None  # RAM++, or a file without its captioning branch
    return dataclasses.replace(
        base,
        **_layer_sizes(tensors, "tag_encoder.encoder.layer.", "tag_layers"),
        layers=count_blocks(tensors, "text_decoder.bert.encoder.layer."),
        vocabulary=len(tensors[_WORDS]),
        max_positions=len(tensors["tag_encoder.embeddings.position_embeddings.weight"]),
    )
