"""The stage `detect` of `clean`: each photo's tags become regions with features and scores.

Detectors find the box of a tag in a photo; its features are of crops or of tokens.
P regions, L labels, T tokens of the grid.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, tee
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, PhotoView
from ramctl.data_engine.region_store import ShardWriter, WorkFolder, cut_into_shards, source_bits
from ramctl.device import Runtime
from ramctl.engine.boxes import WHOLE, Floats, crop_pixels, tokens_under
from ramctl.engine.torch_engine import ScoredRegions
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.labels import LabelSystem
from ramctl.model.regions import Regions
from ramctl.pretrained.hub import local_path
from ramctl.pretrained.transformers_folder import fingerprint
from ramctl.records.inputs import RootCheck
from ramctl.records.parallel import chunks
from ramctl.records.record import (
    Item,
    JsonObject,
    Record,
    Reject,
    listed,
    object_in,
    tags_by_caption,
)
from ramctl.records.shards import ALL, Shard

Tick = Callable[[int], object]
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


def detector_facts(name: str) -> str:
    """The name of a detector with a hash of its weights, on which boxes depend."""
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        return name
    return f"{GROUNDING_DINO}{fingerprint([local_path(weights)])}"


def open_detector(name: str, baseline: Baseline) -> Detector:
    """The detector that `--detector` names.

    Raises UsageProblem for an unknown one, RunProblem for weights that cannot be used.
    """
    if name == "attention":
        return by_attention
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        raise UsageProblem(f"--detector {name}: expected attention or {GROUNDING_DINO}WEIGHTS")
    from ramctl.engine.peers.grounding_dino import GroundingDino

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


class RequestedTag(NamedTuple):
    place: int  # in the record's tags
    labels: tuple[int, ...]  # several where the label system has the string more than once
    sources: int  # as `source_bits`


Request = tuple[Image, list[RequestedTag], Counter[str]]


class PhotoRegions(NamedTuple):
    regions: Sequence[tuple[Any, ...]] = ()  # as `REGION`, without the input
    features: Sequence[NDArray[np.float16]] = ()  # of each region
    photo: NDArray[np.float16] | None = None  # its feature; None without tags
    counts: Mapping[str, int] = MappingProxyType({})  # of its tags, by what became of them


def requested_tags(
    fields: JsonObject, labels: LabelSystem, kinds: Collection[str], counts: Counter[str]
) -> list[RequestedTag]:
    """The tags of a record that get a region; the others are counted by reason."""
    tags = listed(fields, "tags")
    kind_of, sources = (object_in(fields, name) for name in ("kinds", "sources"))
    n_mentions = Counter(chain.from_iterable(tags_by_caption(fields)))
    requested = []
    for place, tag in enumerate(tags):
        if tag in tags[:place]:
            continue
        counts["tags"] += 1
        ids, kind = tuple(labels.ids(tag)), kind_of.get(tag)
        if ids and kind is None:
            kind = labels[ids[0]].kind
        if not ids:
            counts["unknown to the model"] += 1
        elif kind not in kinds:
            counts["of another kind"] += 1
        else:
            bits = source_bits(sources.get(tag, ()), twice=n_mentions[tag] > 1)
            requested.append(RequestedTag(place, ids, bits))
    return requested


@dataclass
class RegionFinder:
    """Fills shards: decodes photos, finds the tags, embeds their regions."""

    baseline: Baseline
    detector: Detector
    kinds: Collection[str]  # of the tags that get a region
    crops: bool = False  # regions are cropped from photos at full scale

    def shard(self, items: Sequence[Item], tick: Tick) -> ShardWriter:
        """A shard of some inputs with their regions.

        A record whose photo cannot be read becomes a reject. `tick(n)` is called after each batch
        of n records and may raise to stop.
        """
        shard = ShardWriter()
        records = (item for item in items if isinstance(item, Record))
        outcomes = self._outcomes(records, shard.counts, tick)
        for position, item in enumerate(items):
            found = PhotoRegions() if isinstance(item, Reject) else next(outcomes)
            if isinstance(item, Record) and isinstance(found, RecordProblem):
                item, found = Reject.of(item, found, "clean"), PhotoRegions()
            assert isinstance(found, PhotoRegions)
            shard.inputs.append(item)
            shard.photos.append(found.photo)
            shard.regions += [(position, *region) for region in found.regions]
            shard.features += found.features
        next(outcomes, None)  # lets the generator count the last batch
        return shard

    def _outcomes(
        self, records: Iterable[Record], counts: Counter[str], tick: Tick
    ) -> Iterator[PhotoRegions | RecordProblem]:
        to_do, batches = tee(chunks(records, self.baseline.batch))
        results = self.baseline.run(to_do, self._request, self._regions)
        check = RootCheck()
        for outcomes, batch in zip(results, batches, strict=False):
            for record, outcome in zip(batch, outcomes, strict=True):
                check.notice(record, outcome)
                counts.update(outcome.counts if isinstance(outcome, PhotoRegions) else ())
            yield from outcomes
            tick(len(outcomes))

    def _request(self, record: Record) -> Request:
        photo, counts = self.baseline.decode(record, whole=self.crops), Counter[str]()
        tags = requested_tags(record.fields, self.baseline.labels, self.kinds, counts)
        return photo, tags, counts

    def _regions(self, requests: list[Request]) -> Iterator[PhotoRegions]:
        """The regions of each photo's tags; a photo without any is not run through the model."""
        photos = [photo for photo, tags, _ in requests if tags]
        features = iter(self.baseline.features(photos) if photos else ())
        for photo, tags, counts in requests:
            found = self._find(photo, tags, next(features)[None]) if tags else PhotoRegions()
            yield found._replace(counts=counts)

    def _find(self, photo: Image, tags: Sequence[RequestedTag], features: Tensor) -> PhotoRegions:
        """The regions of one photo's tags, each of which may be several labels."""
        pairs = [(tag, label) for tag in tags for label in tag.labels]
        view = PhotoView(self.baseline, photo, [label for _, label in pairs], features)
        boxes = zip(pairs, self.detector(view), strict=True)
        boxed = [(tag, label, box) for (tag, label), box in boxes if box is not None]
        whole = whole_photo(view)
        feature = whole.features[0].astype(np.float16)
        if not boxed:
            return PhotoRegions(photo=feature)
        embed = cropped if self.crops else pooled
        scored = embed(view, [(label, box) for _, label, box in boxed])
        features_16 = scored.features.astype(np.float16)
        photo_scores: dict[int, float] = {}  # of each tag
        for (tag, _), score in zip(pairs, whole.scores.tolist(), strict=True):
            photo_scores[tag.place] = max(score, photo_scores.get(tag.place, 0.0))
        best: dict[int, int] = {}  # of each tag's regions; a string with several ids has as many
        for number, (tag, _, _) in enumerate(boxed):
            if tag.place not in best or scored.scores[best[tag.place]] < scored.scores[number]:
                best[tag.place] = number
        regions = [
            (tag.place, tag.labels[0], tag.sources, tuple(box.tolist()), float(scored.scores[n]),
             photo_scores[tag.place])
            for n, (tag, _, box) in ((n, boxed[n]) for n in best.values())
        ]  # fmt: skip
        return PhotoRegions(regions, [features_16[n] for n in best.values()], feature)


def detect(
    work: WorkFolder,
    source: Iterable[Item],
    finder: RegionFinder,
    *,
    part: Shard = ALL,
    strict: bool = False,
    tick: Tick = lambda n: None,
) -> None:
    """Fill every missing shard.

    Of N parts the I-th takes every N-th. Raises RunProblem when the folder was filled from other
    input, and with `strict` at the first reject.
    """
    n_shards = n_inputs = 0
    for number, (items, stamp) in enumerate(cut_into_shards(source)):
        if (finished := work.shard(number)).folder.is_dir():
            if finished.facts["stamp"] != stamp:
                raise RunProblem(
                    f"{work.path}: shard {number} was made from different input; use another "
                    "folder, or remove this one"
                )
            tick(len(items))
        elif number % part.number == part.index - 1:
            shard = finder.shard(items, tick)
            for item in shard.inputs if strict else ():
                if isinstance(item, Reject):
                    item.fail()
            shard.save(finished.folder, stamp)
        n_shards, n_inputs = number + 1, n_inputs + len(items)
    work.complete(n_shards, n_inputs)
