"""Detectors say where a tag is in a photo; embedders say what is there.

B photos, P regions, L labels, T tokens of the grid.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, PhotoBatch
from ramctl.errors import UsageProblem
from ramctl.inference.regions import Floats, crop_pixels, tokens_under
from ramctl.inference.torch_engine import ScoredRegions
from ramctl.model.ram import Regions

if TYPE_CHECKING:
    from ramctl.peers.grounding_dino import GroundingDino

CONTEXT = 0.3
GROUNDING_DINO = "grounding-dino:"
Boxes = list[list[Floats | None]]


@dataclass(frozen=True, slots=True)
class Region:
    """One tag's place in one photo of a batch."""

    photo: int
    label: int  # id in the model's label system
    box: Floats  # of the photo


class Detector(Protocol):
    """Finds the tags of photos."""

    def find(self, batch: PhotoBatch) -> Boxes:
        """For each photo and each of its labels a box of the photo, None where there is none."""


class Embedder(Protocol):
    """Scores and describes regions by the baseline."""

    def embed(self, batch: PhotoBatch, regions: list[Region]) -> ScoredRegions:
        """The probability of each region's own tag, and the feature it is compared by."""


class AttentionDetector:
    """The model itself: where it finds each tag, as `tag --boxes`.

    One forward pass per photo, however many tags it has: in photos of the usual size, as scores of
    regions from larger ones told right tags from wrong ones no better (AUC 0.725, 0.722).
    """

    def find(self, batch: PhotoBatch) -> Boxes:
        prepared, places = batch.distinct
        maps = batch.baseline.engine.heat_maps(batch.features, prepared)
        return [
            list(maps.boxes(photo, [places[label] for label in labels], view))
            for photo, (labels, view) in enumerate(zip(batch.labels, batch.views, strict=True))
        ]


@dataclass(frozen=True, slots=True)
class GroundingDinoDetector:
    """The paper's detector: all labels of a photo in one prompt, as far as they fit.

    Every label gets its best box, however doubtful, because the rules of `clean` decide whether
    the tag is there. A label that the detector's vocabulary cannot spell gets none.
    """

    model: "GroundingDino"
    baseline: Baseline

    def find(self, batch: PhotoBatch) -> Boxes:
        photos = [np.array(photo.convert("RGB")) for photo in batch.photos]
        tags = [[self.baseline.labels[label].tag for label in own] for own in batch.labels]
        return [
            [np.array(found.box, np.float32) if found.score > 0 else None for found in own]
            for own in self.model.detect(photos, tags)
        ]


@dataclass(frozen=True, slots=True)
class PoolEmbedder:
    """Regions as the tokens under their boxes, from the photo's one forward pass.

    The other tokens count `context` times as much: a token of a small photo sees far beyond its
    cell, and a model that was trained on whole photos does not know what a few tokens mean.
    """

    context: float = CONTEXT

    def embed(self, batch: PhotoBatch, regions: list[Region]) -> ScoredRegions:
        grid = batch.grid
        cover = [
            np.maximum(
                tokens_under(batch.views[region.photo].from_photo(region.box), grid, grid),
                np.float32(self.context),
            )
            for region in regions
        ]
        photo = torch.tensor([region.photo for region in regions])
        return _embed(batch, regions, batch.features, photo, torch.from_numpy(np.stack(cover)))


class CropEmbedder:
    """Regions as crops, each of which goes through the encoder: the paper's way."""

    def embed(self, batch: PhotoBatch, regions: list[Region]) -> ScoredRegions:
        photos = [batch.photos[region.photo] for region in regions]
        crops = [
            photo.crop(crop_pixels(region.box, photo.width, photo.height))
            for photo, region in zip(photos, regions, strict=True)
        ]
        features = batch.baseline.features(crops)
        n_tokens = features.shape[1] - batch.baseline.engine.model.encoder.extra_tokens
        cover = torch.ones(len(regions), n_tokens)
        return _embed(batch, regions, features, torch.arange(len(regions)), cover)


def _embed(
    batch: PhotoBatch, regions: list[Region], features: Tensor, photo: Tensor, cover: Tensor
) -> ScoredRegions:
    prepared, places = batch.distinct
    label = torch.tensor([places[region.label] for region in regions])
    return batch.baseline.engine.score_regions(features, Regions(photo, cover, label), prepared)


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
    return GroundingDinoDetector(open_grounding_dino(weights, device=device, dtype=dtype), baseline)
