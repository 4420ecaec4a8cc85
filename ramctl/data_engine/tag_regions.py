"""Each tag of a photo becomes a region: a box, its feature and the model's score of it.

P regions of a photo, L labels, T tokens of the grid, C channels of the backbone, F numbers a
feature.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, tee
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.hub import local_path
from ramctl.data_engine.region_store import REGION, Features, RegionArray
from ramctl.data_engine.tags import RequestedTag, requested_tags
from ramctl.errors import RecordProblem, UsageProblem
from ramctl.inference.boxes import WHOLE, Floats, crop_pixels, tokens_under
from ramctl.inference.runner import ModelRunner
from ramctl.inference.torch_engine import ScoredRegions
from ramctl.model.device import Runtime
from ramctl.model.ram import PreparedLabels
from ramctl.model.regions import Regions
from ramctl.photos.decoding import record_photo
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, Record, Reject

CONTEXT = 0.3
ATTENTION, GROUNDING_DINO = "attention", "grounding-dino:"


@dataclass
class PhotoView:
    """A photo with its features, and the labels of its regions.

    Regions are found and scored photo by photo, so that nothing depends on a photo's neighbours.
    """

    runner: ModelRunner
    photo: Image
    labels: Sequence[int]  # (P,)
    features: Tensor  # (1, extra + T, C)

    @cached_property
    def prepared(self) -> PreparedLabels:
        """The labels as the model takes them."""
        assert self.runner.labels.rows is not None
        return self.runner.engine.prepare(torch.from_numpy(self.runner.labels.rows[self.labels]))

    def score(self, features: Tensor, photo: Tensor, cover: Tensor) -> ScoredRegions:
        """The scores of the labels, each in its photo (P,), by how much tokens count (P, T)."""
        regions = Regions(photo, cover, torch.arange(len(self.labels)))
        return self.runner.engine.score_regions(features, regions, self.prepared)

    @property
    def grid(self) -> int:
        """Rows, and columns, of the token grid."""
        return math.isqrt(self.features.shape[1] - self.runner.engine.model.encoder.extra_tokens)


Box = Floats | tuple[float, float, float, float]
Boxes = Sequence[Floats | None]  # of each of a photo's labels, None where there is none
Detector = Callable[[PhotoView], Boxes]
Scorer = Callable[[PhotoView, Sequence[Box]], ScoredRegions]


def open_detector(name: str, runner: ModelRunner) -> Detector:
    """The detector of a name; UsageProblem for an unknown one, RunProblem for unusable weights."""
    if name == ATTENTION:
        # Scores of regions from larger photos, as of `tag --boxes`, rank right tags no better.
        return lambda view: view.runner.engine.boxes(view.features, view.prepared)
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        raise UsageProblem(f"--detector {name}: expected {ATTENTION} or {GROUNDING_DINO}WEIGHTS")
    from ramctl.inference.peers.grounding_dino import GroundingDino

    dtype = "fp32" if runner.options.dtype == "auto" else runner.options.dtype
    runtime = Runtime.choose(runner.options.device, dtype)
    model = GroundingDino(local_path(weights), (), runtime)
    # There is no memory for another batch beside it.
    runner.side_by_side, runner.model_threads = 1, runner.options.workers

    def by_prompt(view: PhotoView) -> Boxes:
        # Every label gets its best box, however doubtful, because the rules of `clean` decide
        # whether the tag is there. One that the detector's vocabulary cannot spell gets none.
        tags = [view.runner.labels[label].tag for label in view.labels]
        detections = model.detect(np.array(view.photo.convert("RGB")), tags)
        return [np.array(box.box, np.float32) if box.score > 0 else None for box in detections]

    return by_prompt


def whole(view: PhotoView, boxes: Sequence[Box]) -> ScoredRegions:
    """The scores and features of the whole photo, whatever the boxes."""
    return pooled(view, [WHOLE] * len(boxes))


def pooled(view: PhotoView, boxes: Sequence[Box], *, context: float = CONTEXT) -> ScoredRegions:
    """The scores and features of the tokens under the boxes, from the photo's one forward pass.

    The other tokens count `context` times as much: a token of a small photo sees far beyond its
    cell, and a model that was trained on whole photos does not know what a few tokens mean.
    """
    under = np.stack([tokens_under(box, view.grid, view.grid) for box in boxes])
    cover = torch.from_numpy(np.maximum(under, np.float32(context)))
    return view.score(view.features, torch.zeros(len(boxes), dtype=torch.long), cover)


def cropped(view: PhotoView, boxes: Sequence[Box]) -> ScoredRegions:
    """The scores and features of crops, each of which goes through the encoder, as in the paper."""
    photo = view.photo
    crops = [photo.crop(crop_pixels(box, photo.width, photo.height)) for box in boxes]
    cover = torch.ones(len(boxes), view.grid**2)
    return view.score(view.runner.features(crops), torch.arange(len(boxes)), cover)


class PhotoRegions(NamedTuple):
    """The regions of a photo's tags."""

    regions: RegionArray = np.zeros(0, REGION)
    features: Features = np.zeros((0, 0), np.float16)  # (P, F)


NOTHING = PhotoRegions()
Request = tuple[Image, list[RequestedTag]]  # a photo, and the tags to find in it


class RegionFinder:
    """Decodes photos, finds the tags in them, scores their regions."""

    def __init__(
        self, bundle: Bundle, runner: ModelRunner, detector: str, kinds: Collection[str],
        score: Scorer,
    ) -> None:  # fmt: skip
        self.runner, self.kinds, self.score = runner, kinds, score
        self.detect = open_detector(detector, runner)
        self.reduces = detector == ATTENTION  # photos may be decoded at a reduced scale
        usual = bundle.meta.get("open_set", {}).get("calibration", (1.0, 0.0))
        self.curves = np.array([label.calibration or usual for label in runner.labels])  # (L, 2)

    def find(self, items: Iterable[Item]) -> Iterator[tuple[Item, PhotoRegions]]:
        """Each input with its regions; a record whose photo cannot be read becomes a reject."""
        items, ahead = tee(items)
        batches = chunks(ahead, self.runner.batch)
        outcomes = self.runner.run(batches, self._request, self._regions)
        for item, outcome in zip(items, chain.from_iterable(outcomes), strict=True):
            if not isinstance(outcome, RecordProblem):
                yield item, outcome
            elif isinstance(item, Record):
                yield Reject.of(item, outcome, "clean"), NOTHING
            else:
                yield item, NOTHING

    def _request(self, item: Item) -> Request:
        if isinstance(item, Reject):
            raise RecordProblem(item.message, code=item.code)
        target = self.runner.target if self.reduces else None
        photo = record_photo(item, target, self.runner.official)
        return photo, requested_tags(item.fields, self.runner.labels, self.kinds)

    def _regions(self, requests: Sequence[Request]) -> Iterator[PhotoRegions]:
        """The regions of each photo's tags; a photo without any is not run through the model."""
        photos = [photo for photo, tags in requests if tags]
        features = iter(self.runner.features(photos) if photos else ())
        for photo, tags in requests:
            yield self._find(photo, tags, next(features)[None]) if tags else NOTHING

    def _find(self, photo: Image, tags: Sequence[RequestedTag], features: Tensor) -> PhotoRegions:
        """The regions of one photo's tags; of a tag that is several labels the likeliest's."""
        pairs = [(tag, label) for tag in tags for label in tag.labels]
        view = PhotoView(self.runner, photo, [label for _, label in pairs], features)
        boxes = self.detect(view)
        scored = self.score(view, [WHOLE if box is None else box for box in boxes])
        slopes, offsets = self.curves[view.labels].T
        log_odds = slopes * scored.logits + offsets
        best: dict[RequestedTag, int] = {}
        for n, (tag, _) in enumerate(pairs):
            if boxes[n] is not None and (tag not in best or log_odds[best[tag]] < log_odds[n]):
                best[tag] = n
        rows = [
            (0, tag.place, tag.labels[0], *tag[2:], boxes[n], log_odds[n])
            for tag, n in best.items()
        ]
        features_16 = scored.features[[*best.values()]].astype(np.float16)
        return PhotoRegions(np.array(rows, REGION), features_16)
