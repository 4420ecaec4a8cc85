"""Image encoders that training starts from: timm's by name, or a file of weights.

C channels of the backbone's tokens, K classes of its own classifier.
"""

import sys
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ramctl.checkpoints.foreign_file import read_checkpoint, tensors_of
from ramctl.checkpoints.weights import RELATIVE_POSITIONS, load_strictly, resize_table
from ramctl.errors import RunProblem, UsageProblem
from ramctl.model.config import Preset, change_preset
from ramctl.model.encoder import ImageEncoder, stages_of
from ramctl.pretrained.hub import HUB, local_path
from ramctl.pretrained.imagenet import N_CLASSES, PACKAGED, load_packaged
from ramctl.records.record import JsonObject

RANDOM = "none"
_FILES = (".safetensors", ".pth", ".pt", ".bin")
_WEIGHTS = "model.safetensors"  # of timm's models on the hub
_NO_CLASSES = {
    "classes": 0,
    "class_token": False,
    "class_residual": False,
    "class_sharpness": 0.0,
}


def with_encoder(preset: Preset, encoder: str) -> Preset:
    """The preset, to be started from `encoder`: a name of timm's, a file of weights, or `none`.

    A name brings its architecture, and the mean, std and interpolation of the photos that it has
    seen. The same share of its stages is frozen as of the preset's. Where its classifier does not
    say ImageNet's classes by the mean of its tokens, the prior does without them. A file holds
    weights of the preset's own backbone. UsageProblem where timm has no weights of a name.
    """
    start = {"training": {"encoder": encoder}}
    if encoder == RANDOM:
        return _without_classes(change_preset(preset, start))
    if _is_file(encoder):
        return change_preset(preset, start)
    seen = _known(encoder)
    photos: JsonObject = {"mean": list(seen.mean), "std": list(seen.std)}
    if seen.interpolation in ("bilinear", "bicubic"):
        photos["interpolation"] = seen.interpolation
    preset = change_preset(preset, start | {"preprocess": photos})
    architecture = encoder.partition(".")[0]
    if architecture == preset.model.encoder.backbone:
        return preset
    takes_size, backbone = _build(architecture, seen.num_classes, preset.preprocess.size)
    frozen = preset.training.backbone.frozen_stages
    if frozen:
        former = ImageEncoder(preset.model.encoder, preset.preprocess.size).backbone
        share = frozen / len(stages_of(former))
        frozen = max(1, round(share * len(stages_of(backbone))))
    own = {
        "backbone": architecture,
        "width": backbone.num_features,
        "options": {},
        "image_size_option": takes_size,
        "window_size": 0,
    }
    changes = {"model": {"encoder": own}, "training": {"frozen_stages": frozen}}
    changed = change_preset(preset, changes)
    if seen.num_classes == N_CLASSES and _reads_mean(backbone, preset.preprocess.size):
        return changed
    return _without_classes(changed)


def load_encoder(encoder: ImageEncoder, name: str) -> tuple[tuple[Tensor, Tensor] | None, str]:
    """Load weights named as for `with_encoder`: its classifier's weight (K, C) and bias (K), if
    it has one, and where they come from.

    timm converts other projects' names and interpolates a ViT's positions; Swin's tables are
    resized as those of bundles. RunProblem where the weights cannot be had, or are another's.
    """
    backbone, architecture = encoder.backbone, name.partition(".")[0]
    packaged = PACKAGED.get(architecture)
    if packaged is not None and packaged.is_installed and not _is_file(name):
        return load_packaged(backbone, packaged), f"the package {packaged.project}"
    path = _fetch(name)
    found = _converted(backbone, tensors_of(read_checkpoint(path)), path)
    classifier = backbone.pretrained_cfg["classifier"]
    head = [found.pop(f"{classifier}.{part}", None) for part in ("weight", "bias")]
    load_strictly(backbone, found, path)
    if head[0] is None or head[1] is None:
        return None, name
    return (head[0].float().flatten(1), head[1].float()), name


def _known(name: str) -> Any:  # timm's configuration of the weights
    seen = get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if seen is None:
        raise UsageProblem(f"--encoder {name}: neither a file nor a model that timm has weights of")
    return seen


def _is_file(encoder: str) -> bool:
    return encoder.startswith(HUB) or "/" in encoder or encoder.endswith(_FILES)


def _without_classes(preset: Preset) -> Preset:
    if preset.model.prior is None or not preset.model.prior.classes:
        return preset
    teachers = [name for name in preset.training.losses.distill if name != "imagenet"]
    training = {"classes_weight": 0.0, "distill": teachers}
    return change_preset(preset, {"model": {"prior": _NO_CLASSES}, "training": training})


def _build(architecture: str, n_classes: int, size: int) -> tuple[bool, Any]:
    """The backbone with its classifier, and whether its shape depends on the photo's size."""
    try:
        backbone = timm.create_model(architecture, num_classes=n_classes, img_size=size)
    except TypeError:
        return False, timm.create_model(architecture, num_classes=n_classes)
    except (RuntimeError, AssertionError) as error:
        raise UsageProblem(f"--encoder {architecture} at {size} px: {error}") from error
    return True, backbone


def _reads_mean(backbone: Any, size: int) -> bool:
    """Whether the backbone's classifier reads the mean of its tokens and nothing else."""
    with torch.inference_mode():
        maps = backbone.eval().forward_features(torch.randn(1, 3, size, size))
        axes = (1,) if maps.dim() == 3 else (1, 2) if _is_channels_last(backbone) else (2, 3)
        classifier: nn.Module = backbone.get_classifier()
        logits = classifier(maps.mean(axes)), backbone.forward_head(maps)
    return bool(torch.allclose(*logits, rtol=1e-3, atol=1e-4))


def _is_channels_last(backbone: Any) -> bool:
    return getattr(backbone, "output_fmt", "NCHW") == "NHWC"


def _fetch(name: str) -> Path:
    if _is_file(name):
        return local_path(name)
    seen = _known(name)
    place = f"{HUB}{seen.hf_hub_id}:{seen.hf_hub_filename or _WEIGHTS}"
    try:
        return local_path(place)
    except RunProblem as error:
        raise RunProblem(
            f"{error.message}; --encoder FILE names its weights here, --encoder none starts "
            "without, --init BUNDLE from a bundle"
        ) from error


def _converted(backbone: nn.Module, found: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights under timm's names, and in this backbone's shapes where they only differ by the
    size of the photos or of Swin's window."""
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return found
    own = backbone.state_dict()
    for name in own.keys() & found.keys():
        if name.endswith(RELATIVE_POSITIONS):
            found[name] = resize_table(found[name], len(own[name]))
    try:
        converted: dict[str, Tensor] = convert(found, backbone)
    except (AttributeError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RunProblem(f"{path}: not the weights of this backbone ({reason})") from error
    return converted
