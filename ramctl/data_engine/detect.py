"""The stage `detect` of `clean`: each photo's tags become regions with features and scores."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ramctl.data_engine.baseline import Baseline, Decoded, Photo, SeenPhoto
from ramctl.data_engine.detectors import Detector, Embedder
from ramctl.data_engine.region_store import (
    TWICE,
    ShardWriter,
    WorkFolder,
    cut_into_shards,
    source_bits,
)
from ramctl.errors import RecordProblem, RunProblem, attempt
from ramctl.inference.regions import WHOLE, Floats
from ramctl.labels import LabelSystem
from ramctl.records.jsonl import stamp_of
from ramctl.records.parallel import chunks, map_good, ordered_map
from ramctl.records.record import Item, JsonObject, Record, Reject, object_in, string_list
from ramctl.records.shards import ALL, Shard

Tick = Callable[[int], object]
STAGE = "clean"


@dataclass(frozen=True, slots=True)
class WantedTag:
    """A tag that gets a region."""

    place: int  # in the record's tags
    labels: tuple[int, ...]  # several where the label system has the string more than once
    sources: int  # as `source_bits`


Wanted = tuple[Photo, list[WantedTag]]


@dataclass(frozen=True, slots=True)
class TagRegion:
    """A tag with its region."""

    tag: WantedTag
    box: Floats
    score: float
    feature: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a photo."""

    regions: Sequence[TagRegion] = ()
    feature: NDArray[np.float16] | None = None  # of the whole photo; None where nothing is wanted


@dataclass(frozen=True)
class Scope:
    """Which tags of a record get a region."""

    labels: LabelSystem
    kinds: frozenset[str]
    only: frozenset[int] | None = None  # label ids

    def wanted(self, record: Record, counts: Counter[str]) -> list[WantedTag]:
        """The tags that get a region; the others are counted by reason."""
        tags = string_list(record.fields, "tags")
        kinds, sources = (object_in(record.fields, name) for name in ("kinds", "sources"))
        named_by = _captions_naming(record.fields)
        wanted = []
        for place, tag in enumerate(tags):
            if tag in tags[:place]:
                continue
            labels, why_not = self._labels(tag, kinds.get(tag))
            counts["tags"] += 1
            if why_not:
                counts[why_not] += 1
            else:
                named = sources.get(tag)
                twice = [TWICE] if named_by[tag] > 1 else []
                bits = source_bits([*(named if isinstance(named, list) else ()), *twice])
                wanted.append(WantedTag(place, labels, bits))
        return wanted

    def _labels(self, tag: str, kind: object) -> tuple[tuple[int, ...], str]:
        """The ids of a tag, and why it gets no region (empty when it gets one)."""
        ids = tuple(self.labels.ids(tag))
        if not ids:
            return ids, "unknown to the model"
        if self.only is not None and ids[0] not in self.only:
            return ids, "not asked for"
        known = kind if isinstance(kind, str) else self.labels[ids[0]].kind
        return ids, "" if known in self.kinds else "of another kind"


@dataclass
class RegionFinder:
    """Fills shards: decodes photos, finds the tags, embeds their regions."""

    baseline: Baseline
    detector: Detector
    embedder: Embedder
    scope: Scope
    whole_photos: bool = False  # crops are cut from photos at their own scale

    def fill(self, shard: ShardWriter, items: Sequence[Item], tick: Tick) -> None:
        """Add the inputs that a shard lacks, with their regions.

        A record whose photo cannot be read becomes a reject. `tick(n)` is called after each batch
        of n records and may raise to stop; the shard then holds what was done.
        """
        first = len(shard.inputs)
        records = (item for item in items[first:] if isinstance(item, Record))
        looked_at = self._looked_at(records, shard.counts, tick)
        for position, item in enumerate(items[first:], first):
            seen = Seen() if isinstance(item, Reject) else next(looked_at)
            if isinstance(item, Record) and isinstance(seen, RecordProblem):
                item, seen = Reject.of(item, seen, STAGE), Seen()
            assert isinstance(seen, Seen)
            shard.inputs.append(item)
            shard.photos.append(seen.feature)
            for region in seen.regions:
                tag, box = region.tag, tuple(region.box.tolist())
                row = (position, tag.place, tag.labels[0], tag.sources, box, region.score)
                shard.regions.append(row)
                shard.features.append(region.feature)
        next(looked_at, None)  # lets the generator count the last batch

    def _looked_at(
        self, records: Iterable[Record], counts: Counter[str], tick: Tick
    ) -> Iterator[Seen | RecordProblem]:
        """What is in each record's photo, in order."""
        batches = chunks(records, self.baseline.batch)
        decoded = self.baseline.decoded(batches, whole=self.whole_photos)
        for seen, of_batch in ordered_map(self._seen, decoded, self.baseline.side_by_side):
            yield from seen
            counts.update(of_batch)
            tick(len(seen))

    def _seen(self, decoded: Sequence[Decoded]) -> tuple[list[Seen | RecordProblem], Counter[str]]:
        """What is in each photo of a batch, and the counts of its tags."""
        counts = Counter[str]()

        def wanted(record: Record, photo: Photo) -> Wanted:
            return photo, self.scope.wanted(record, counts)

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
        boxes = zip(asked, self.detector.find(one), strict=True)
        boxed = [(tag, label, box) for (tag, label), box in boxes if box is not None]
        # The whole photo is a region too; which of its labels is asked for does not matter.
        whole = one.labels[0], np.array(WHOLE, np.float32)
        scored = self.embedder.embed(one, [*((label, box) for _, label, box in boxed), whole])
        features_16 = scored.features.astype(np.float16)
        best: dict[int, TagRegion] = {}
        for (tag, _, box), score, feature in zip(boxed, scored.scores, features_16, strict=False):
            # Of a string with several ids, which is looked for under each, the best region is kept.
            if tag.place not in best or best[tag.place].score < float(score):
                best[tag.place] = TagRegion(tag, box, float(score), feature)
        return Seen(list(best.values()), features_16[-1])


def _captions_naming(fields: JsonObject) -> Counter[str]:
    """How many of a record's captions name each tag, as far as it tells."""
    of_captions = fields.get("caption_tags")
    lists = of_captions if isinstance(of_captions, list) else []
    return Counter(chain.from_iterable({*map(str, x)} for x in lists if isinstance(x, list)))


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
        if work.has_shard(number):
            if work.shard(number).facts["stamp"] != stamp:
                raise RunProblem(
                    f"{work.path}: shard {number} was made from other input; name another folder, "
                    "or remove this one"
                )
            tick(len(items))
        elif number % part.number == part.index - 1:
            if strict:
                _fail_at_reject(items)
            shard = _filled(work, number, items, finder, tick)
            if strict:
                _fail_at_reject(shard.inputs)
            shard.save(work.shard(number).folder, stamp)
            work.forget_unfinished(number)
        n_shards, n_inputs = number + 1, n_inputs + len(items)
    work.complete(n_shards, n_inputs)


def _filled(
    work: WorkFolder, number: int, items: Sequence[Item], finder: RegionFinder, tick: Tick
) -> ShardWriter:
    """A complete shard; it continues what a stopped run had of it, and keeps it when stopped."""
    stamps = [stamp_of(item) for item in items]
    shard = work.unfinished(number, stamps)
    if shard.inputs:
        tick(len(shard.inputs))
    try:
        finder.fill(shard, items, tick)
    except Exception:
        work.keep_unfinished(number, shard, stamps)
        raise
    return shard


def _fail_at_reject(items: Sequence[Item]) -> None:
    for item in items:
        if isinstance(item, Reject):
            item.fail()
