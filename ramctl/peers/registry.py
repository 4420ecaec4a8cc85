"""Specs such as `clip:FOLDER`: which peer a name opens."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ramctl.errors import UsageProblem
from ramctl.peers.base import Peer
from ramctl.pretrained.hub import local_path

if TYPE_CHECKING:
    from ramctl.device import Runtime
    from ramctl.peers.grounding_dino import GroundingDino

Opener = Callable[[Path, Sequence[str], "Runtime"], Peer]


def _clip(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.clip import ClipPeer

    return ClipPeer(path, labels, runtime)


def _siglip(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.siglip import SiglipPeer

    return SiglipPeer(path, labels, runtime)


def _blip(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.blip import BlipMatchingPeer

    return BlipMatchingPeer(path, labels, runtime)


def _blip_itc(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.blip import BlipContrastivePeer

    return BlipContrastivePeer(path, labels, runtime)


def _grounding_dino(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.grounding_dino import GroundingDino

    return GroundingDino.open(path, labels, runtime)


def _ml_decoder(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.ml_decoder import MLDecoderPeer

    return MLDecoderPeer(path, labels, runtime)


def _mkt(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.mkt import MKTPeer

    return MKTPeer(path, labels, runtime)


def _mask2former(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.panoptic import Mask2FormerPeer

    return Mask2FormerPeer(path, labels, runtime)


def _oneformer(path: Path, labels: Sequence[str], runtime: "Runtime") -> Peer:
    from ramctl.peers.panoptic import OneFormerPeer

    return OneFormerPeer(path, labels, runtime)


_OPENERS: dict[str, Opener] = {
    "clip": _clip,
    "siglip": _siglip,
    "blip": _blip,
    "blip-itc": _blip_itc,
    "grounding-dino": _grounding_dino,
    "ml-decoder": _ml_decoder,
    "mkt": _mkt,
    "mask2former": _mask2former,
    "oneformer": _oneformer,
}
# Their deformable attention reads pixels between positions; bf16 has 8 bits for one.
_FINE = {"grounding-dino", "mask2former", "oneformer"}
# Their labels are fixed by training; without labels of the user's they give their own.
_CLOSED = {"ml-decoder", "mask2former", "oneformer"}


def peer_kinds() -> tuple[str, ...]:
    """The words that a spec may start with."""
    return tuple(_OPENERS)


def is_peer(spec: str) -> bool:
    """Whether a model's name is a peer's spec."""
    kind, colon, path = spec.partition(":")
    return bool(colon and path) and kind in _OPENERS


def open_peer(
    spec: str, labels: Sequence[str], *, device: str = "auto", dtype: str = "auto"
) -> Peer:
    """The peer that `KIND:PATH` names, ready to score photos against `labels`.

    PATH is a local folder (or file, where the authors gave one) or an `hf://owner/name`. The
    closed ones (`ml-decoder`, `mask2former`, `oneformer`) take an empty `labels` for their own.
    Raises UsageProblem for a spec that names nothing, RunProblem when the weights do not fit.
    """
    kind, _, name = spec.partition(":")
    if not is_peer(spec):
        raise UsageProblem(f"model {spec!r}: expected KIND:PATH with {', '.join(_OPENERS)}")
    if not labels and kind not in _CLOSED:
        raise UsageProblem(f"model {spec}: has no labels of its own; name some with --labels")
    path = local_path(name)
    return _OPENERS[kind](path, labels, _runtime(kind, device, dtype))


def open_detector(weights: str, *, device: str = "auto", dtype: str = "auto") -> "GroundingDino":
    """Grounding DINO for its boxes: the model of `grounding-dino:WEIGHTS`.

    Raises what `open_peer` raises.
    """
    from ramctl.peers.grounding_dino import GroundingDino

    runtime = _runtime("grounding-dino", device, dtype)
    return GroundingDino.open(local_path(weights), (), runtime)


def _runtime(kind: str, device: str, dtype: str) -> "Runtime":
    from ramctl.device import Runtime

    return Runtime.choose(device, "fp32" if dtype == "auto" and kind in _FINE else dtype)
