"""The start of training: label embeddings, and the first weights of the model.

The weights are a bundle's, a pretrained backbone's, or random ones. N texts, M vectors of one
label, E text width, C channels of the backbone's tokens, K classes of its classifier.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ramctl.checkpoints import weights
from ramctl.checkpoints.bundle import META, TEXT_FOLDER, Bundle, embedded_bundle
from ramctl.checkpoints.load import load_model
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Labels
from ramctl.model.build_ram import build_ram
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import LabelConfig, Preset
from ramctl.model.ram import RAM
from ramctl.pretrained import packages
from ramctl.pretrained.hub import HUB, local_path
from ramctl.text.clip import PREFIX, ClipTextEncoder
from ramctl.text.static_table import StaticTextEncoder, TextEncoder, read_text_encoder, unit

Notify = Callable[[str], None]
Rows = NDArray[np.float32]
Classifier = tuple[Tensor, Tensor]  # weight (K, C) and bias (K)


def initial_model(
    preset: Preset,
    labels: Labels,
    vocabulary: int,
    encoder: TextEncoder | None,
    init: Bundle | None,
    notify: Notify,
) -> RAM:
    """Build the model before its first step; `notify` gets the origin of its weights.

    `vocabulary` is the size of the captioning branch's vocabulary, `encoder` embeds labels that
    are new (None for learnt queries), `init` is the bundle to start from.
    """
    torch.manual_seed(preset.training.seed)
    kind, texts = preset.model.labels.kind, []
    if kind != "learnt":
        assert encoder is not None
        texts = label_vectors(labels, preset.model.labels, encoder, init, notify)
    model = build_ram(
        preset.model,
        image_size=preset.preprocess.size,
        n_labels=len(labels),
        vocabulary=vocabulary,
        description_counts=list(map(len, texts)) if kind == "descriptions" else None,
    )
    if texts:
        model.labels.set_text(torch.from_numpy(np.concatenate(texts)))
    if init is not None:
        _copy_bundle_weights(model, preset, labels, init)
        notify(f"weights from {init.path}")
    else:
        notify(_initialise_backbone(model, preset, encoder))
    if preset.training.captions_alone:
        assert model.captioning is not None
        model.requires_grad_(False)
        model.captioning.requires_grad_(True)
    elif preset.training.backbone_lr_factor == 0:
        model.encoder.requires_grad_(False)
    elif preset.training.frozen_stages:
        model.encoder.freeze(preset.training.frozen_stages)
    return model


def _initialise_backbone(model: RAM, preset: Preset, encoder: TextEncoder | None) -> str:
    """Load ImageNet weights into backbone and prior; a message that names them."""
    name, start = preset.model.encoder.backbone, first_weights(preset)
    if isinstance(start, str):
        head, source = load_encoder(model.encoder, start)
        _set_classes(model, head, encoder, source)
        return f"backbone {name} from {source}"
    if start is not None:
        parts = ("encoder.", "prior.classifier.", "prior.class_names")
        names = [key for key in weights.weights_of(model) if key.startswith(parts)]
        stored = start.tensors(names)
        _copy_weights(model, {key: torch.from_numpy(stored[key]) for key in names})
        return f"backbone {name} from the embedded model"
    _set_classes(model, None, encoder, "random weights")
    return f"backbone {name} with random weights"


def first_weights(preset: Preset) -> str | Bundle | None:
    """The origin of the backbone's weights: a name for `load_encoder`, the embedded model, none."""
    name = preset.model.encoder.backbone
    packaged = packages.PACKAGED.get(name)
    if preset.training.encoder or (packaged is not None and packaged.is_installed):
        return preset.training.encoder or name
    if (embedded_bundle() / META).is_file():
        embedded = Bundle.open(embedded_bundle())
        if embedded.preset.model.encoder.backbone == name:
            return embedded
    return None


def load_encoder(encoder: ImageEncoder, name: str) -> tuple[Classifier | None, str]:
    """Load a backbone's weights by the name in `training.encoder`: a model of timm's, or a file.

    Returns the backbone's classifier, if it has one, and the origin of the weights. timm converts
    other projects' names and interpolates a ViT's positions; Swin's tables are resized like those
    of bundles. RunProblem where the weights are missing, or belong to another backbone.
    """
    backbone, architecture = encoder.backbone, name.partition(".")[0]
    packaged = packages.PACKAGED.get(architecture)
    place = weights_place(name)
    if packaged is not None and packaged.is_installed and place != name:
        return packages.load_packaged(backbone, packaged), f"the package {packaged.project}"
    path = local_path(place)
    tensors = _converted(backbone, weights.tensors_of(weights.read_checkpoint(path)), path)
    classifier = backbone.pretrained_cfg["classifier"]
    head = [tensors.pop(f"{classifier}.{part}", None) for part in ("weight", "bias")]
    weights.load_strictly(backbone, tensors, path)
    if head[0] is None or head[1] is None:
        return None, name
    return (head[0].float().flatten(1), head[1].float()), name


def weights_place(name: str) -> str:
    """The file that `training.encoder` names, or its model's on the hub; UsageProblem for none."""
    if name.startswith(HUB) or "/" in name or name.endswith(weights.SUFFIXES):
        return name
    known = get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if known is None:
        reason = "neither a file nor a timm model with weights"
        raise UsageProblem(f"training.encoder {name}: {reason}")
    return f"{HUB}{known.hf_hub_id}:{known.hf_hub_filename or 'model.safetensors'}"


def _converted(backbone: nn.Module, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under timm's names, resized to this backbone's photo and window size."""
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    expected = backbone.state_dict()
    for name in expected.keys() & tensors.keys():
        if name.endswith(weights.RELATIVE_POSITIONS):
            tensors[name] = weights.resize_table(tensors[name], len(expected[name]))
    try:
        return convert(tensors, backbone)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunProblem(f"{path}: not the weights of this backbone ({reason})") from error


def _set_classes(
    model: RAM, head: Classifier | None, encoder: TextEncoder | None, source: str
) -> None:
    """Set the prior's classifier (K, C), (K,) and class names to the backbone's."""
    if model.prior is None or model.prior.classifier is None:
        return
    without = "set model.prior.classes, class_token and class_sharpness to 0"
    if head is None or head[0].shape != model.prior.classifier.weight.shape:
        raise UsageProblem(f"{source}: no classifier of ImageNet for the prior: {without}")
    assert encoder is not None
    names = [[part.strip() for part in name.split(",")] for name in packages.class_names()]
    model.prior.set_classes(*head, torch.from_numpy(embed_groups(names, encoder)))


def _copy_bundle_weights(model: RAM, preset: Preset, labels: Labels, init: Bundle) -> None:
    """Copy all weights, rows of labels by their tags; new labels keep their embedding."""
    captioning = preset.model.captioning is not None
    source = weights.weights_of(load_model(init, preset=preset, captioning=captioning))
    rows = rows_in(init.labels, labels)
    moved = rows != list(range(len(init.labels)))
    known = [index for index, row in enumerate(rows) if row >= 0]
    copies = {}
    for name, initial in weights.weights_of(model).items():
        if name not in source:
            raise RunProblem(f"{init.path}: has no {name}; is it of another preset?")
        value = source[name].detach()
        if preset.model.labels.kind != "learnt" and name in ("labels.text", "labels.counts"):
            value = initial  # set from the label vectors already
        elif moved and name.startswith("labels."):
            stored, value = value, initial.detach().clone()
            value[known] = stored[[rows[index] for index in known]]
        copies[name] = value
    _copy_weights(model, copies)


def _copy_weights(model: RAM, tensors: dict[str, Tensor]) -> None:
    parameters = weights.weights_of(model)
    with torch.no_grad():
        for name, value in tensors.items():
            if value.shape != parameters[name].shape:
                raise RunProblem(
                    f"{name} has shape {tuple(value.shape)}, "
                    f"the preset's is {tuple(parameters[name].shape)}"
                )
            parameters[name].copy_(value)


def open_text_encoder(text: str | None, init: Bundle | None, preset: Preset) -> TextEncoder:
    """The encoder of `--text`, else of the bundle that training starts from, else of the teacher.

    `text` is the folder of a static table. A bundle keeps its CLIP; without any the embedded
    model's table serves. Raises UsageProblem when the width is not the preset's,
    RunProblem when there is no table.
    """
    labels = preset.model.labels
    encoder: TextEncoder | None = None
    place = clip_place(preset.training.distill)
    if place is not None and init is None and text is None:
        clip = ClipTextEncoder(place, "ram-plus" if labels.kind == "descriptions" else "ram")
        if clip.width != labels.width:
            raise UsageProblem(f"model.labels.width is {labels.width}, {place} has {clip.width}")
        return clip
    if text is not None:
        encoder = StaticTextEncoder.read(Path(text))
    elif init is not None:
        encoder = read_text_encoder(init.path / TEXT_FOLDER)
    if encoder is None:
        embedded = read_text_encoder(embedded_bundle() / TEXT_FOLDER)
        if not isinstance(embedded, StaticTextEncoder):
            raise RunProblem(
                "no text embedding for the labels: name the folder of a static table with --text "
                "(scripts/build_text_table.py makes one)"
            )
        encoder = replace(embedded, source="the embedded model")
    if not isinstance(encoder, StaticTextEncoder):
        return encoder
    is_installed = find_spec(packages.SENTENCE_ENCODER) is not None
    use_encoder = is_installed and len(encoder.projection) == packages.WIDTH
    return replace(encoder.cut_to(labels.width), with_sentence_encoder=use_encoder)


def clip_place(teachers: Sequence[str]) -> str | None:
    """The place of the CLIP among the teachers, if there is one."""
    return next((t.removeprefix(PREFIX) for t in teachers if t.startswith(PREFIX)), None)


def label_vectors(
    labels: Labels,
    config: LabelConfig,
    encoder: TextEncoder,
    init: Bundle | None,
    notify: Notify,
) -> list[Rows]:
    """The vectors (M, E) of each label: one for its name, or one per description.

    Labels of `init` keep theirs, and only new ones are embedded, unless its labels are of another
    kind or width.
    """
    stored, rows = [], [-1] * len(labels)
    before = config if init is None else init.preset.model.labels
    if init is not None and (before.kind, before.width) == (config.kind, config.width):
        tensors = init.tensors(["labels.text", "labels.counts"])
        text, counts = tensors["labels.text"].astype(np.float32), tensors["labels.counts"].tolist()
        stored, rows = _split(text, counts), rows_in(init.labels, labels)
    new = Labels(label for label, row in zip(labels, rows, strict=True) if row < 0)
    embedded: Iterator[Rows] = iter(())
    if len(new):
        embedded = iter(_embed_labels(new, config, encoder))
        notify(f"queries of {len(new)} labels from {encoder.name}")
    return [next(embedded) if row < 0 else stored[row] for row in rows]


def rows_in(known: Labels, labels: Labels) -> list[int]:
    """The row that each label has in the system `known`, -1 where it has none."""
    tags, rows = known.tags, []
    for index, label in enumerate(labels):
        ids = known.ids(label.tag)
        # Names may occur twice, as in Tag2Text's list: a label at the same place is the same label.
        same = index < len(tags) and tags[index] == label.tag
        rows.append(index if same else ids[0] if ids else -1)
    return rows


def _embed_labels(labels: Labels, config: LabelConfig, encoder: TextEncoder) -> list[Rows]:
    if config.kind != "descriptions":
        return _split(encoder.embed_names(labels.tags), [1] * len(labels))
    # "a photo of a TAG." is the first description. Source: the authors' generate_tag_des_llm.py.
    texts = [[f"a photo of a {label.tag}.", *label.descriptions] for label in labels]
    vectors = encoder.embed_sentences([text for group in texts for text in group])
    return _split(vectors, [len(group) for group in texts])


def embed_groups(groups: Sequence[Sequence[str]], encoder: TextEncoder) -> Rows:
    """The mean unit vector of each group of texts (N, E); zeros for an empty group."""
    flat = [text for texts in groups for text in texts]
    means = np.zeros((len(groups), encoder.width), np.float32)
    vectors = encoder.embed_sentences(flat) if flat else means[:0]
    for row, group in enumerate(_split(vectors, [len(texts) for texts in groups])):
        if len(group):
            means[row] = group.mean(0)
    return unit(means)


def _split(vectors: Rows, counts: Sequence[int]) -> list[Rows]:
    return np.split(vectors, np.cumsum(counts)[:-1])
