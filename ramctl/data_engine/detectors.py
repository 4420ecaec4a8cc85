"""Detectors say where a tag is in a photo; embedders say what is there.

P regions, L labels, T tokens of the grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, SeenPhoto
from ramctl.errors import UsageProblem
from ramctl.inference.regions import Floats, crop_pixels, tokens_under
from ramctl.inference.torch_engine import ScoredRegions
from ramctl.model.regions import Regions

if TYPE_CHECKING:
    from ramctl.peers.grounding_dino import GroundingDino

CONTEXT = 0.3
GROUNDING_DINO = "grounding-dino:"
Region = tuple[int, Floats]  # a label's id, and its box in the photo


class Detector(Protocol):
    """Finds the tags of photos."""

    def find(self, seen: SeenPhoto) -> Sequence[Floats | None]:
        """For each of the photo's labels a box, None where there is none."""


class Embedder(Protocol):
    """Scores and describes regions by the baseline."""

    def embed(self, seen: SeenPhoto, regions: Sequence[Region]) -> ScoredRegions:
        """The probability of each region's label, and the feature it is compared by."""


class AttentionDetector:
    """The model itself: where it finds each tag, as `tag --boxes`.

    One forward pass per photo, however many tags it has: in photos of the usual size, as scores of
    regions from larger ones told right tags from wrong ones no better (AUC 0.725, 0.722).
    """

    def find(self, seen: SeenPhoto) -> Sequence[Floats | None]:
        maps = seen.baseline.engine.heat_maps(seen.features, seen.prepared)
        return maps.boxes(0, seen.places(seen.labels), seen.view)


@dataclass(frozen=True, slots=True)
class GroundingDinoDetector:
    """The paper's detector: all labels of a photo in one prompt, as far as they fit.

    Every label gets its best box, however doubtful, because the rules of `clean` decide whether
    the tag is there. A label that the detector's vocabulary cannot spell gets none.
    """

    model: "GroundingDino"

    def find(self, seen: SeenPhoto) -> Sequence[Floats | None]:
        tags = [seen.baseline.labels[label].tag for label in seen.labels]
        (detections,) = self.model.detect([np.array(seen.photo.convert("RGB"))], [tags])
        return [np.array(one.box, np.float32) if one.score > 0 else None for one in detections]


@dataclass(frozen=True, slots=True)
class PoolEmbedder:
    """Regions as the tokens under their boxes, from the photo's one forward pass.

    The other tokens count `context` times as much: a token of a small photo sees far beyond its
    cell, and a model that was trained on whole photos does not know what a few tokens mean.
    """

    context: float = CONTEXT

    def embed(self, seen: SeenPhoto, regions: Sequence[Region]) -> ScoredRegions:
        cover = [
            np.maximum(
                tokens_under(seen.view.from_photo(box), seen.grid, seen.grid),
                np.float32(self.context),
            )
            for _, box in regions
        ]
        photo = torch.zeros(len(regions), dtype=torch.long)
        return _embed(seen, regions, seen.features, photo, torch.from_numpy(np.stack(cover)))


class CropEmbedder:
    """Regions as crops, each of which goes through the encoder: the paper's way."""

    def embed(self, seen: SeenPhoto, regions: Sequence[Region]) -> ScoredRegions:
        photo = seen.photo
        crops = [photo.crop(crop_pixels(box, photo.width, photo.height)) for _, box in regions]
        features = seen.baseline.features(crops)
        cover = torch.ones(len(regions), seen.grid**2)
        return _embed(seen, regions, features, torch.arange(len(regions)), cover)


def _embed(
    seen: SeenPhoto, regions: Sequence[Region], features: Tensor, photo: Tensor, cover: Tensor
) -> ScoredRegions:
    label = torch.tensor(seen.places(label for label, _ in regions))
    asked = Regions(photo, cover, label)
    return seen.baseline.engine.score_regions(features, asked, seen.prepared)


def detector_facts(name: str) -> str:
    """The name with a hash of the weights it points to: what boxes depend on."""
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        return name
    from ramctl.pretrained.hub import local_path
    from ramctl.pretrained.transformers_folder import fingerprint

    return f"{GROUNDING_DINO}{fingerprint([local_path(weights)])}"


def open_detector(name: str, baseline: Baseline) -> Detector:
    """The detector that `--detector` names.

    Raises UsageProblem for an unknown one, RunProblem for weights that cannot be used.
    """
    if name == "attention":
        return AttentionDetector()
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        raise UsageProblem(f"--detector {name}: expected attention or {GROUNDING_DINO}WEIGHTS")
    from ramctl.peers import open_detector as open_grounding_dino

    device, dtype = baseline.options.device, baseline.options.dtype
    baseline.run_alone()
    return GroundingDinoDetector(open_grounding_dino(weights, device=device, dtype=dtype))
