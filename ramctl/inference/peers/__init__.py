"""Taggers of other architectures, `--model KIND:PATH`: built in, or of an installed package.

A package brings one by an entry point of the group `ramctl.taggers`; README.md has an example.
"""

from collections.abc import Sequence

import numpy as np

from ramctl.checkpoints.hub import local_path
from ramctl.errors import RecordProblem, UsageProblem
from ramctl.inference.log_odds import NO_FIRST
from ramctl.inference.peers.peer import Peer, is_strip
from ramctl.inference.runner import RUNTIME, Ids, ModelPhoto, Runner, RunnerOptions, Scores
from ramctl.records.extras import load_plugin, plugins
from ramctl.records.parallel import usable_cores
from ramctl.records.record import Record

GROUP = "ramctl.taggers"
BUILT_IN = {
    "clip": "ramctl.inference.peers.image_text:ClipPeer",
    "siglip": "ramctl.inference.peers.image_text:SiglipPeer",
    "grounding-dino": "ramctl.inference.peers.grounding_dino:GroundingDino",
    "onnx": "ramctl.inference.peers.onnx_folder:OnnxFolder",
}


def is_peer(model: str) -> bool:
    """Whether a model's name is the `KIND:PATH` of a peer."""
    kind, colon, _ = model.partition(":")
    return bool(colon) and "/" not in kind and kind != "hf"


def open_peer(
    spec: str, labels: Sequence[str], *, device: str = "auto", dtype: str = "auto"
) -> Peer:
    """The peer that `KIND:PATH` names; empty `labels` are those that a closed one was trained on.

    PATH is a folder (or a file, where the authors gave one) or an `hf://owner/name`. Raises
    UsageProblem for a spec that names nothing, RunProblem when the weights do not fit.
    """
    kind, _, name = spec.partition(":")
    known = plugins(GROUP, BUILT_IN.items())
    if kind not in known or not name:
        kinds = f"KIND:PATH with {', '.join(sorted(known))}"
        manual = "the manual of plug-ins is ramctl/inference/peers/README.md"
        raise UsageProblem(f"model {spec!r}: expected {kinds}; {manual}")
    peer: type[Peer] = load_plugin(known[kind], f"model {spec}")
    if not labels and not peer.is_closed:
        raise UsageProblem(f"model {spec}: has no labels of its own; name some with --labels")
    if not peer.needs_torch:
        if device not in ("auto", "cpu") or dtype not in ("auto", "fp32"):
            raise UsageProblem(f"model {spec}: runs on the CPU in fp32")
        return peer(local_path(name), labels, None)
    from ramctl.model.device import Runtime

    dtype = "fp32" if dtype == "auto" and peer.needs_fp32 else dtype
    return peer(local_path(name), labels, Runtime.choose(device, dtype))


class PeerRunner(Runner):
    """Scores photos by a peer, `KIND:PATH`."""

    def __init__(self, spec: str, labels: Sequence[str], options: RunnerOptions) -> None:
        self.peer = open_peer(spec, labels, device=options.device, dtype=options.dtype)
        self.unknown = self.peer.unknown
        self.batch = options.batch or self.peer.batch
        self.workers = options.workers or usable_cores()
        library = "torch" if self.peer.needs_torch else "cpu"
        self.description = f"{spec}, {library} {options.device}, batch {self.batch}"
        self.fingerprint = {"--model": self.peer.fingerprint, RUNTIME: f"{library} {options.dtype}"}

    def read(self, record: Record) -> ModelPhoto:
        photo = super().read(record)
        if is_strip(photo.pixels):
            height, width, _ = photo.pixels.shape
            message = f"{width}x{height} pixels: too thin for this model"
            raise RecordProblem(message, code="too_large")
        return photo

    def scores_of(self, photos: Sequence[ModelPhoto]) -> tuple[Scores, Ids]:
        scores = self.peer.scores([photo.pixels for photo in photos])
        return scores, np.full(len(scores), NO_FIRST)
