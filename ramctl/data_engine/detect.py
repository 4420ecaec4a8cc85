"""The stage `detect` of `clean`: each photo's tags become regions with features and scores.

Detectors say where a tag is in a photo, embedders what is there.
P regions, L labels, T tokens of the grid.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, Decoded, Photo, SeenPhoto
from ramctl.data_engine.region_store import ShardWriter, WorkFolder, cut_into_shards, source_bits
from ramctl.device import Runtime
from ramctl.errors import RecordProblem, RunProblem, UsageProblem, attempt
from ramctl.inference.regions import WHOLE, Floats, crop_pixels, tokens_under
from ramctl.inference.torch_engine import ScoredRegions
from ramctl.labels import LabelSystem
from ramctl.model.regions import Regions
from ramctl.records.parallel import chunks, map_good, ordered_map
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

# Gives for each of the photo's labels a box, None where there is none.
Detector = Callable[[SeenPhoto], Sequence[Floats | None]]
# Gives the probability of each region's label by the baseline, and the feature it is compared by.
Embedder = Callable[[SeenPhoto, Sequence[Region]], ScoredRegions]


def by_attention(seen: SeenPhoto) -> Sequence[Floats | None]:
    """A `Detector`, the model itself: where it finds each tag, as `tag --boxes`.

    One forward pass per photo, however many tags it has: in photos of the usual size, as scores of
    regions from larger ones told right tags from wrong ones no better (AUC 0.725, 0.722).
    """
    maps = seen.baseline.engine.heat_maps(seen.features, seen.prepared)
    return maps.boxes(0, seen.places(seen.labels))


def pooled(
    seen: SeenPhoto, regions: Sequence[Region], *, context: float = CONTEXT
) -> ScoredRegions:
    """An `Embedder`: the tokens under the boxes, from the photo's one forward pass.

    The other tokens count `context` times as much: a token of a small photo sees far beyond its
    cell, and a model that was trained on whole photos does not know what a few tokens mean.
    """
    under = np.stack([tokens_under(box, seen.grid, seen.grid) for _, box in regions])
    cover = torch.from_numpy(np.maximum(under, np.float32(context)))
    photo = torch.zeros(len(regions), dtype=torch.long)
    return _scored(seen, regions, seen.features, photo, cover)


def cropped(seen: SeenPhoto, regions: Sequence[Region]) -> ScoredRegions:
    """An `Embedder`, the paper's: crops, each of which goes through the encoder."""
    photo = seen.photo
    crops = [photo.crop(crop_pixels(box, photo.width, photo.height)) for _, box in regions]
    cover = torch.ones(len(regions), seen.grid**2)
    return _scored(seen, regions, seen.baseline.features(crops), torch.arange(len(regions)), cover)


def of_photo(seen: SeenPhoto) -> ScoredRegions:
    """The whole photo as a region of each label that is asked for."""
    regions = [(label, np.array(WHOLE, np.float32)) for label in seen.labels]
    cover = torch.ones(len(regions), seen.grid**2)
    photo = torch.zeros(len(regions), dtype=torch.long)
    return _scored(seen, regions, seen.features, photo, cover)


def _scored(
    seen: SeenPhoto, regions: Sequence[Region], features: Tensor, photo: Tensor, cover: Tensor
) -> ScoredRegions:
    asked = Regions(photo, cover, torch.tensor(seen.places(label for label, _ in regions)))
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
        return by_attention
    weights = name.removeprefix(GROUNDING_DINO)
    if weights in (name, ""):
        raise UsageProblem(f"--detector {name}: expected attention or {GROUNDING_DINO}WEIGHTS")
    from ramctl.peers.grounding_dino import GroundingDino
    from ramctl.pretrained.hub import local_path

    device, dtype = baseline.options.device, baseline.options.dtype
    runtime = Runtime.choose(device, "fp32" if dtype == "auto" else dtype)
    baseline.run_alone()
    model = GroundingDino(local_path(weights), (), runtime)

    def by_prompt(seen: SeenPhoto) -> Sequence[Floats | None]:
        """The paper's: all labels of a photo in one prompt, as far as they fit.

        Every label gets its best box, however doubtful, because the rules of `clean` decide whether
        the tag is there. A label that the detector's vocabulary cannot spell gets none.
        """
        tags = [seen.baseline.labels[label].tag for label in seen.labels]
        detections = model.detect(np.array(seen.photo.convert("RGB")), tags)
        return [np.array(one.box, np.float32) if one.score > 0 else None for one in detections]

    return by_prompt


class WantedTag(NamedTuple):
    """A tag that gets a region."""

    place: int  # in the record's tags
    labels: tuple[int, ...]  # several where the label system has the string more than once
    sources: int  # as `source_bits`


Wanted = tuple[Photo, list[WantedTag]]


class Seen(NamedTuple):
    """What is in a photo."""

    regions: Sequence[tuple[Any, ...]] = ()  # as `REGION`, without the input
    features: Sequence[NDArray[np.float16]] = ()  # of each region
    photo: NDArray[np.float16] | None = None  # its feature; None where nothing is wanted


def wanted_tags(
    fields: JsonObject, labels: LabelSystem, kinds: Collection[str], counts: Counter[str]
) -> list[WantedTag]:
    """The tags of a record that get a region; the others are counted by reason."""
    tags = listed(fields, "tags")
    kind_of, sources = (object_in(fields, name) for name in ("kinds", "sources"))
    named_by = Counter(chain.from_iterable(tags_by_caption(fields)))
    wanted = []
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
            bits = source_bits(sources.get(tag, ()), twice=named_by[tag] > 1)
            wanted.append(WantedTag(place, ids, bits))
    return wanted


@dataclass
class RegionFinder:
    """Fills shards: decodes photos, finds the tags, embeds their regions."""

    baseline: Baseline
    detector: Detector
    embedder: Embedder
    kinds: Collection[str]  # of the tags that get a region
    whole_photos: bool = False  # crops are cut from photos at their own scale

    @classmethod
    def open(cls, baseline: Baseline, detector: str, kinds: Collection[str]) -> "RegionFinder":
        """The finder with what `--detector` names; others' boxes are cropped from whole photos."""
        crops = detector != "attention"
        embedder = cropped if crops else pooled
        return cls(baseline, open_detector(detector, baseline), embedder, kinds, crops)

    def shard(self, items: Sequence[Item], tick: Tick) -> ShardWriter:
        """A shard of some inputs with their regions.

        A record whose photo cannot be read becomes a reject. `tick(n)` is called after each batch
        of n records and may raise to stop.
        """
        shard = ShardWriter()
        records = (item for item in items if isinstance(item, Record))
        looked_at = self._looked_at(records, shard.counts, tick)
        for position, item in enumerate(items):
            seen = Seen() if isinstance(item, Reject) else next(looked_at)
            if isinstance(item, Record) and isinstance(seen, RecordProblem):
                item, seen = Reject.of(item, seen, "clean"), Seen()
            assert isinstance(seen, Seen)
            shard.inputs.append(item)
            shard.photos.append(seen.photo)
            shard.regions += [(position, *region) for region in seen.regions]
            shard.features += seen.features
        next(looked_at, None)  # lets the generator count the last batch
        return shard

    def _looked_at(
        self, records: Iterable[Record], counts: Counter[str], tick: Tick
    ) -> Iterator[Seen | RecordProblem]:
        batches = chunks(records, self.baseline.batch)
        decoded = self.baseline.decoded(batches, whole=self.whole_photos)
        for seen, of_batch in ordered_map(self._seen, decoded, self.baseline.side_by_side):
            yield from seen
            counts.update(of_batch)
            tick(len(seen))

    def _seen(self, decoded: Sequence[Decoded]) -> tuple[list[Seen | RecordProblem], Counter[str]]:
        counts = Counter[str]()

        def wanted(record: Record, photo: Photo) -> Wanted:
            return photo, wanted_tags(record.fields, self.baseline.labels, self.kinds, counts)

        items = [x if isinstance(x, RecordProblem) else attempt(wanted, *x) for x in decoded]
        return map_good(items, self._regions), counts

    def _regions(self, wanted: list[Wanted]) -> Iterator[Seen]:
        """The regions of each photo's tags; a photo without any is not looked at."""
        photos = [photo for photo, tags in wanted if tags]
        features = iter(self.baseline.features(photos) if photos else ())
        for photo, tags in wanted:
            yield self._find(photo, tags, next(features)[None]) if tags else Seen()

    def _find(self, photo: Photo, tags: Sequence[WantedTag], features: Tensor) -> Seen:
        """The regions of one photo's tags, each of which may be several labels."""
        asked = [(tag, label) for tag in tags for label in tag.labels]
        one = SeenPhoto(self.baseline, photo, [label for _, label in asked], features)
        boxes = zip(asked, self.detector(one), strict=True)
        boxed = [(tag, label, box) for (tag, label), box in boxes if box is not None]
        whole = of_photo(one)
        feature = whole.features[0].astype(np.float16)
        if not boxed:
            return Seen(photo=feature)
        scored = self.embedder(one, [(label, box) for _, label, box in boxed])
        features_16 = scored.features.astype(np.float16)
        of_whole: dict[int, float] = {}  # the score of each tag
        for (tag, _), score in zip(asked, whole.scores.tolist(), strict=True):
            of_whole[tag.place] = max(score, of_whole.get(tag.place, 0.0))
        best: dict[int, int] = {}  # of each tag's regions; a string with several ids has as many
        for number, (tag, _, _) in enumerate(boxed):
            if tag.place not in best or scored.scores[best[tag.place]] < scored.scores[number]:
                best[tag.place] = number
        regions = [
            (tag.place, tag.labels[0], tag.sources, tuple(box.tolist()), float(scored.scores[n]),
             of_whole[tag.place])
            for n, (tag, _, box) in ((n, boxed[n]) for n in best.values())
        ]  # fmt: skip
        return Seen(regions, [features_16[n] for n in best.values()], feature)


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
        if (there := work.shard(number)).folder.is_dir():
            if there.facts["stamp"] != stamp:
                raise RunProblem(
                    f"{work.path}: shard {number} was made from other input; name another folder, "
                    "or remove this one"
                )
            tick(len(items))
        elif number % part.number == part.index - 1:
            shard = finder.shard(items, tick)
            for item in shard.inputs if strict else ():
                if isinstance(item, Reject):
                    item.fail()
            shard.save(there.folder, stamp)
        n_shards, n_inputs = number + 1, n_inputs + len(items)
    work.complete(n_shards, n_inputs)
