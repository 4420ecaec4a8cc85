"""Which peer a spec such as `clip:FOLDER` opens."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from ramctl.errors import UsageProblem
from ramctl.pretrained.hub import local_path

if TYPE_CHECKING:
    from ramctl.device import Runtime
    from ramctl.peers.base import Peer
    from ramctl.peers.grounding_dino import GroundingDino


class _Kind(NamedTuple):
    module: str  # imported on use: looking at a spec must not load a model library
    name: str
    is_closed: bool = False  # has labels of its own, fixed by training
    # Deformable attention reads pixels between positions; bf16 has 8 bits for a position.
    is_fine: bool = False


KINDS = {  # by the word that a spec starts with
    "clip": _Kind("image_text", "ClipPeer"),
    "siglip": _Kind("image_text", "SiglipPeer"),
    "blip": _Kind("image_text", "BlipMatchingPeer"),
    "blip-itc": _Kind("image_text", "BlipContrastivePeer"),
    "grounding-dino": _Kind("grounding_dino", "GroundingDino", is_fine=True),
    "ml-decoder": _Kind("ml_decoder", "MLDecoderPeer", is_closed=True),
    "mkt": _Kind("mkt", "MKTPeer"),
    "mask2former": _Kind("panoptic", "Mask2FormerPeer", is_closed=True, is_fine=True),
    "oneformer": _Kind("panoptic", "OneFormerPeer", is_closed=True, is_fine=True),
}


def is_peer(spec: str) -> bool:
    """Whether a model's name is a peer's spec."""
    kind, _, path = spec.partition(":")
    return bool(path) and kind in KINDS


def open_peer(
    spec: str, labels: Sequence[str], *, device: str = "auto", dtype: str = "auto"
) -> "Peer":
    """The peer that `KIND:PATH` names; a closed one takes an empty `labels` for its own.

    PATH is a folder (or a file, where the authors gave one) or an `hf://owner/name`. Raises
    UsageProblem for a spec that names nothing, RunProblem when the weights do not fit.
    """
    kind, _, name = spec.partition(":")
    if not is_peer(spec):
        raise UsageProblem(f"model {spec!r}: expected KIND:PATH with {', '.join(KINDS)}")
    if not labels and not KINDS[kind].is_closed:
        raise UsageProblem(f"model {spec}: has no labels of its own; name some with --labels")
    path = local_path(name)
    module = import_module(f"ramctl.peers.{KINDS[kind].module}")
    return getattr(module, KINDS[kind].name)(path, labels, _runtime(kind, device, dtype))


def open_detector(weights: str, *, device: str = "auto", dtype: str = "auto") -> "GroundingDino":
    """Grounding DINO for its boxes: the peer `grounding-dino:WEIGHTS`, without labels."""
    from ramctl.peers.grounding_dino import GroundingDino

    return GroundingDino(local_path(weights), (), _runtime("grounding-dino", device, dtype))


def _runtime(kind: str, device: str, dtype: str) -> "Runtime":
    from ramctl.device import Runtime

    return Runtime.choose(device, "fp32" if dtype == "auto" and KINDS[kind].is_fine else dtype)
