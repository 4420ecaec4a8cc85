"""The start of training: labels, vocabulary, label vectors, and the first weights of the model.

The weights are a bundle's, a pretrained backbone's, or random ones. N texts, M vectors of one
label, E text width, C channels of the backbone's tokens, K classes of its classifier.
"""

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data.imagenet_info import ImageNetInfo
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ramctl.checkpoints import weights
from ramctl.checkpoints.bundle import (
    META,
    TEXT_FOLDER,
    TOKENIZER,
    Bundle,
    embedded_bundle,
    read_labels,
)
from ramctl.checkpoints.clip import ClipTextEncoder
from ramctl.checkpoints.hub import HUB, local_path
from ramctl.checkpoints.load import load_model
from ramctl.checkpoints.static_table import StaticTextEncoder, TextEncoder, read_text_encoder, unit
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.build_ram import build_ram
from ramctl.model.caption_tokenizer import (
    CaptionTokenizer,
    bert_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import CaptioningConfig, LabelConfig, Preset
from ramctl.model.ram import RAM
from ramctl.records.labels import Labels
from ramctl.training.annotations import TagCounts, build_labels
from ramctl.training.teachers import clip_place

Notify = Callable[[str], None]
Rows = NDArray[np.float32]
Classifier = tuple[Tensor, Tensor]  # weight (K, C) and bias (K)
RANDOM = "; `--set training.encoder=` begins with random weights, and =FILE with a file's"
OFFLINE = (
    "; `--distill clip:FOLDER` takes it from a folder, and `--text mini --distill none --set "
    "training.encoder=` trains without downloads"
)


def choose_labels(
    name: str | None, init: Bundle | None, counts: TagCounts, notify: Notify
) -> Labels:
    """The label system of `--labels`, of the bundle to start from, or of the tags counted."""
    if init is not None and name is not None and name.startswith("+"):
        return init.labels.extended(read_labels(name[1:]))
    if name is not None:
        return read_labels(name)
    if init is not None:
        return init.labels
    labels = build_labels(counts)
    notify(f"no --labels: {len(labels)} labels built from the tags")
    return labels


def caption_tokenizer(
    path: Path, config: CaptioningConfig, init: Bundle | None, texts: Iterable[str]
) -> CaptionTokenizer:
    """The captioning branch's tokenizer in `path`, else the bundle's, or learnt from texts."""
    if not path.is_file():
        if init is None:
            is_bert = config.pieces == "bert"
            words = bert_tokenizer() if is_bert else train_tokenizer(texts, config.vocabulary)
            words.save(str(path))
        elif init.has(TOKENIZER):
            shutil.copyfile(init.path / TOKENIZER, path)
        else:
            raise RunProblem(
                f"{init.path} has no vocabulary for its captions: convert it with --vocab, "
                "or train without them (--set model.captioning=false)"
            )
    return CaptionTokenizer(load_tokenizer(path), config)


def initial_model(
    preset: Preset, labels: Labels, vocabulary: int, encoder: TextEncoder | None,
    init: Bundle | None, notify: Notify,
) -> RAM:  # fmt: skip
    """Build the model before its first step; `notify` gets the origin of its weights.

    `vocabulary` is the number of the captioning branch's tokens, `encoder` embeds labels that are
    new (None for learnt queries), `init` is the bundle to start from.
    """
    config, labelling = preset.training, preset.model.labels
    torch.manual_seed(config.seed)
    texts = []
    if encoder is not None:
        texts = _label_vectors(labels, labelling, encoder, init, notify)
    counts = list(map(len, texts)) if labelling.kind == "descriptions" else None
    model = build_ram(
        preset.model, image_size=preset.preprocess.size, n_labels=len(labels),
        vocabulary=vocabulary, description_counts=counts,
    )  # fmt: skip
    if texts:
        model.labels.set_text(torch.from_numpy(np.concatenate(texts)))
    if init is not None:
        _copy_bundle_weights(model, preset, labels, init)
        notify(f"weights from {init.path}")
    else:
        notify(f"backbone {preset.model.encoder.backbone} {_initialise(model, preset, encoder)}")
    if config.captions_alone:
        captioning = preset.model.captioning
        is_own = captioning is not None and not captioning.tie_tag_decoder
        if init is None or init.labels.tags != labels.tags or not (is_own and model.captioning):
            raise UsageProblem(
                "training.tag_weight = 0 trains captions alone: it needs a tagger with these "
                "labels to start from, and a captioning branch with weights of its own"
            )
        model.requires_grad_(False)
        model.captioning.requires_grad_(True)
    elif config.backbone_lr_factor == 0:
        model.encoder.requires_grad_(False)
    elif config.frozen_stages:
        model.encoder.freeze(config.frozen_stages)
    return model


def _initialise(model: RAM, preset: Preset, encoder: TextEncoder | None) -> str:
    """Load ImageNet weights into backbone and prior; words that name their origin."""
    origin = first_weights(preset)
    if isinstance(origin, Bundle):
        parts = ("encoder.", "prior.classifier.", "prior.class_names")
        targets = {k: x for k, x in weights.weights_of(model).items() if k.startswith(parts)}
        with torch.no_grad():
            for name, value in origin.tensors(targets).items():
                targets[name].copy_(torch.from_numpy(value))
        return "from the embedded model"
    head, words = None, "with random weights"
    if origin is not None:
        head, source = load_encoder(model.encoder, origin)
        words = f"from {source}"
    if model.prior is not None and model.prior.classifier is not None:
        if head is None or encoder is None:
            without = "set model.prior.classes, class_token and class_sharpness to 0"
            raise UsageProblem(f"backbone {words}: no named classes for the prior: {without}")
        # ImageNet's 1,000 classes in order; several names of one are "a, b".
        classes = ImageNetInfo("imagenet-1k").label_descriptions()
        names = [[part.strip() for part in name.split(",")] for name in classes]
        model.prior.set_classes(*head, torch.from_numpy(embed_groups(names, encoder)))
    return words


def first_weights(preset: Preset) -> str | Bundle | None:
    """The origin of the backbone's weights: a name for `load_encoder`, the embedded model, none."""
    if preset.training.encoder:
        return preset.training.encoder
    if (embedded_bundle() / META).is_file():
        embedded = Bundle.open(embedded_bundle())
        if embedded.preset.model.encoder.backbone == preset.model.encoder.backbone:
            return embedded
    return None


def load_encoder(encoder: ImageEncoder, name: str) -> tuple[Classifier | None, str]:
    """Load a backbone's weights by the name in `training.encoder`: a model of timm's, or a file.

    Returns the backbone's classifier, if it has one, and the origin of the weights. timm converts
    other projects' names and interpolates a ViT's positions; Swin's tables are resized like those
    of bundles. RunProblem where the weights are missing, or belong to another backbone.
    """
    backbone, path = encoder.backbone, local_path(weights_place(name), RANDOM)
    tensors = _converted(backbone, weights.tensors_of(weights.read_checkpoint(path)))
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


def _converted(backbone: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names, resized to this backbone's photo and window size."""
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors
    expected = backbone.state_dict()
    for name in expected.keys() & tensors.keys():
        if name.endswith(weights.RELATIVE_POSITIONS):
            tensors[name] = weights.resize_table(tensors[name], len(expected[name]))
    return convert(tensors, backbone)


def _copy_bundle_weights(model: RAM, preset: Preset, labels: Labels, init: Bundle) -> None:
    """Copy all weights, rows of labels by their tags; new labels keep their embedding."""
    captioning = preset.model.captioning is not None
    source = weights.weights_of(load_model(init, preset=preset, captioning=captioning))
    rows = torch.tensor(rows_in(init.labels, labels))
    known = rows >= 0
    with torch.no_grad():
        for name, target in weights.weights_of(model).items():
            is_row = name.startswith("labels.")
            if preset.model.labels.kind != "learnt" and name in ("labels.text", "labels.counts"):
                continue  # set from the label vectors already
            value = source.get(name)
            if value is None or value.shape[is_row:] != target.shape[is_row:]:
                raise RunProblem(f"{init.path}: {name} does not fit; is it of another preset?")
            if is_row:
                target[known] = value[rows[known]]
            else:
                target.copy_(value)


def open_text_encoder(text: str | None, init: Bundle | None, preset: Preset) -> TextEncoder:
    """The encoder of `--text`, else of the bundle that training starts from, else of the teacher.

    `text` is the folder of a static table, or `mini` for the embedded model's, which serves where
    there is no other.
    """
    labels, place = preset.model.labels, clip_place(preset.training.distill)
    if place is not None and init is None and text is None:
        prompts = "ram-plus" if labels.kind == "descriptions" else "ram"
        return ClipTextEncoder(place, prompts, OFFLINE)
    encoder = read_text_encoder(init.path / TEXT_FOLDER) if init and text is None else None
    if encoder is None:
        is_embedded = text in (None, "mini")
        folder = embedded_bundle() / TEXT_FOLDER if is_embedded else Path(str(text))
        encoder = StaticTextEncoder.read(folder, source="mini" if is_embedded else "")
    return encoder.resized(labels.width) if isinstance(encoder, StaticTextEncoder) else encoder


def _label_vectors(
    labels: Labels, config: LabelConfig, encoder: TextEncoder, init: Bundle | None, notify: Notify
) -> list[Rows]:
    """The vectors (M, E) of each label: one for its name, or one per description.

    Labels of `init` keep theirs, unless its labels are of another kind or width.
    """
    stored, rows = [], [-1] * len(labels)
    before = config if init is None else init.preset.model.labels
    if init is not None and (before.kind, before.width) == (config.kind, config.width):
        text, counts = init.tensors(["labels.text", "labels.counts"]).values()
        stored, rows = _split(text.astype(np.float32), counts), rows_in(init.labels, labels)
    new = [label for label, row in zip(labels, rows, strict=True) if row < 0]
    embedded: Iterator[Rows] = iter(())
    if new:  # else a CLIP is not even opened
        notify(f"queries of {len(new)} labels from {encoder.name}")
        if config.kind == "descriptions":
            # "a photo of a TAG." is the first. Source: the authors' generate_tag_des_llm.py.
            texts = [[f"a photo of a {label.tag}.", *label.descriptions] for label in new]
            vectors = encoder.embed_sentences([text for group in texts for text in group])
        else:
            texts = [[label.tag] for label in new]
            vectors = encoder.embed_names([label.tag for label in new])
        embedded = iter(_split(vectors, [len(group) for group in texts]))
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


def embed_groups(groups: Sequence[Sequence[str]], encoder: TextEncoder) -> Rows:
    """The mean unit vector of each group of texts (N, E); zeros for an empty group."""
    flat = [text for texts in groups for text in texts]
    means = np.zeros((len(groups), encoder.width), np.float32)
    vectors = encoder.embed_sentences(flat) if flat else means[:0]
    for row, group in enumerate(_split(vectors, [len(texts) for texts in groups])):
        if len(group):
            means[row] = group.mean(0)
    return unit(means)


def _split(vectors: Rows, counts: Sequence[int] | NDArray[np.int64]) -> list[Rows]:
    return np.split(vectors, np.cumsum(counts)[:-1])
