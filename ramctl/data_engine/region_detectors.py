"""Each tag of a photo becomes a region: a box, its feature and the model's score of it.

Detectors find the box of a tag in a photo; its feature is of a crop or of tokens.
P regions, L labels, T tokens of the grid, F numbers a feature.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, PhotoView
from ramctl.data_engine.region_store import REGION, Array, Features
from ramctl.data_engine.tags import RequestedTag, requested_tags
from ramctl.device import Runtime
from ramctl.errors import RecordProblem, UsageProblem
from ramctl.inference.boxes import WHOLE, Floats, crop_pixels, tokens_under
from ramctl.inference.torch_engine import ScoredRegions
from ramctl.model.regions import Regions
from ramctl.pretrained.hub import local_path
from ramctl.records.inputs import RootCheck
from ramctl.records.parallel import chunks
from ramctl.records.record import Item, Record, Reject

CONTEXT = 0.3
GROUNDING_DINO = "grounding-dino:"
Region = tuple[int, Floats]  # a label's id, and its box in the photo

# Finds a box for each of the photo's labels, None where there is none.
Detector = Callable[[PhotoView], Sequence[Floats | None]]


def by_attention(view: PhotoView) -> Sequence[Floats | None]:
    """A `Detector`, the model itself: where it finds each tag, as `tag --boxes`.

    One forward pass per photo of the usual size, however many tags it has: scores of regions from
    larger photos rank right tags no better.
    """
    boxes = view.baseline.engine.boxes(view.features, view.prepared)
    return [boxes[place] for place in view.places(view.labels)]


def pooled(
    view: PhotoView, regions: Sequence[Region], *, context: float = CONTEXT
) -> ScoredRegions:
    """The scores and features of the tokens under the boxes, from the photo's one forward pass.

    The other tokens count `context` times as much: a token of a small photo sees far beyond its
    cell, and a model that was trained on whole photos does not know what a few tokens mean.
    """
    under = np.stack([tokens_under(box, view.grid, view.grid) for _, box in regions])
    cover = torch.from_numpy(np.maximum(under, np.float32(context)))
    photo = torch.zeros(len(regions), dtype=torch.long)
    return _scored(view, regions, view.features, photo, cover)


def cropped(view: PhotoView, regions: Sequence[Region]) -> ScoredRegions:
    """The scores and features of crops, each of which goes through the encoder, as in the paper."""
    photo = view.photo
    crops = [photo.crop(crop_pixels(box, photo.width, photo.height)) for _, box in regions]
    cover = torch.ones(len(regions), view.grid**2)
    return _scored(view, regions, view.baseline.features(crops), torch.arange(len(regions)), cover)


def whole_photo(view: PhotoView) -> ScoredRegions:
    """The whole photo as a region of each of its labels."""
    regions = [(label, np.array(WHOLE, np.float32)) for label in view.labels]
    cover = torch.ones(len(regions), view.grid**2)
    photo = torch.zeros(len(regions), dtype=torch.long)
    return _scored(view, regions, view.features, photo, cover)


def _scored(
    view: PhotoView, regions: Sequence[Region], features: Tensor, photo: Tensor, cover: Tensor
) -> ScoredRegions:
    requested = Regions(photo, cover, torch.tensor(view.places(label for label, _ in regions)))
    return view.baseline.engine.score_regions(features, requested, view.prepared)


def open_detector(name: str, baseline: Baseline) -> Detector:
    """The detector that `--detector` names.

    Raises UsageProblem for an unknown one, RunProblem for weights that cannot be used.
    """
    if name == "attention":
        return by_attention
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        raise UsageProblem(f"--detector {name}: expected attention or {GROUNDING_DINO}WEIGHTS")
    from ramctl.inference.peers.grounding_dino import GroundingDino

    device, dtype = baseline.options.device, baseline.options.dtype
    runtime = Runtime.choose(device, "fp32" if dtype == "auto" else dtype)
    baseline.run_alone()
    model = GroundingDino(local_path(weights), (), runtime)

    def by_prompt(view: PhotoView) -> Sequence[Floats | None]:
        """The paper's detector: all labels of a photo in one prompt, as far as they fit.

        Every label gets its best box, however doubtful, because the rules of `clean` decide whether
        the tag is there. A label that the detector's vocabulary cannot spell gets none.
        """
        tags = [view.baseline.labels[label].tag for label in view.labels]
        detections = model.detect(np.array(view.photo.convert("RGB")), tags)
        return [np.array(box.box, np.float32) if box.score > 0 else None for box in detections]

    return by_prompt


class PhotoRegions(NamedTuple):
    """The regions of a photo's tags."""

    regions: Array = np.zeros(0, REGION)
    features: Features = np.zeros((0, 0), np.float16)  # of the regions (P, F)
    photo: Features = np.zeros(0, np.float16)  # the photo's own (F,)


NOTHING = PhotoRegions()
Request = tuple[Image, list[RequestedTag], Counter[str]]


@dataclass
class RegionFinder:
    """Decodes photos, finds the tags in them, embeds their regions."""

    baseline: Baseline
    detector: Detector
    kinds: Collection[str]  # of the tags that get a region
    crops: bool = False  # regions are cropped from photos at full scale
    counts: Counter[str] = field(default_factory=Counter)  # of tags, by what became of them

    def find(self, items: Iterable[Item]) -> Iterator[tuple[Item, PhotoRegions]]:
        """Each input with its regions; a record whose photo cannot be read becomes a reject."""
        ahead: deque[list[Item]] = deque()

        def batches() -> Iterator[list[Item]]:
            for batch in chunks(items, self.baseline.batch):
                ahead.append(batch)
                yield batch

        check = RootCheck()
        for outcomes in self.baseline.run(batches(), self._request, self._regions):
            for item, outcome in zip(ahead.popleft(), outcomes, strict=True):
                if isinstance(item, Record):
                    check.notice(item, outcome)
                if not isinstance(outcome, RecordProblem):
                    found, counts = outcome
                    self.counts.update(counts)
                    yield item, found
                elif isinstance(item, Record):
                    yield Reject.of(item, outcome, "clean"), NOTHING
                else:
                    yield item, NOTHING

    def _request(self, item: Item) -> Request:
        if isinstance(item, Reject):
            raise RecordProblem(item.message, code=item.code)
        photo, counts = self.baseline.decode(item, whole=self.crops), Counter[str]()
        return photo, requested_tags(item.fields, self.baseline.labels, self.kinds, counts), counts

    def _regions(self, requests: list[Request]) -> Iterator[tuple[PhotoRegions, Counter[str]]]:
        """The regions of each photo's tags; a photo without any is not run through the model."""
        photos = [photo for photo, tags, _ in requests if tags]
        features = iter(self.baseline.features(photos) if photos else ())
        for photo, tags, counts in requests:
            yield self._find(photo, tags, next(features)[None]) if tags else NOTHING, counts

    def _find(self, photo: Image, tags: Sequence[RequestedTag], features: Tensor) -> PhotoRegions:
        """The regions of one photo's tags, each of which may be several labels."""
        pairs = [(tag, label) for tag in tags for label in tag.labels]
        view = PhotoView(self.baseline, photo, [label for _, label in pairs], features)
        boxes = zip(pairs, self.detector(view), strict=True)
        boxed = [(tag, label, box) for (tag, label), box in boxes if box is not None]
        if not boxed:
            return NOTHING
        whole = whole_photo(view)
        embed = cropped if self.crops else pooled
        scored = embed(view, [(label, box) for _, label, box in boxed])
        photo_scores: dict[int, float] = {}  # of each tag
        for (tag, _), score in zip(pairs, whole.scores.tolist(), strict=True):
            photo_scores[tag.place] = max(score, photo_scores.get(tag.place, 0.0))
        best: dict[int, int] = {}  # of each tag's regions; a string with several ids has as many
        for number, (tag, _, _) in enumerate(boxed):
            if tag.place not in best or scored.scores[best[tag.place]] < scored.scores[number]:
                best[tag.place] = number
        rows = []
        for n in best.values():
            tag, _, box = boxed[n]
            scores = scored.scores[n], photo_scores[tag.place]
            rows.append((0, tag.place, tag.labels[0], tag.sources, box, *scores))
        features_16 = scored.features[list(best.values())].astype(np.float16)
        photo_16 = whole.features[0].astype(np.float16)
        return PhotoRegions(np.array(rows, REGION), features_16, photo_16)
