"""Photos in, records with tags out: the library behind `ramctl tag`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import RecordProblem, attempt
from ramctl.inference.batches import chunks, map_good, ordered_map
from ramctl.inference.device_pool import DevicePool, split_devices
from ramctl.photos.decoding import PhotoLimits, record_photo
from ramctl.records.record import JsonObject, Record, encode_name, set_tags
from ramctl.tagging.scorers import BundleScorer, Decoded, PeerScorer, Scorer, TaggerOptions
from ramctl.tagging.selection import TagSelector

Outcome = JsonObject | RecordProblem
Batch = list[Record]
DENSE_DIGITS = 6


class Tagger:
    """A loaded model with its labels.

    `Tagger.load("mini").tag(["photo.jpg"])` yields `{"image", "tags", "scores"}`.
    """

    def __init__(self, scorer: Scorer, options: TaggerOptions) -> None:
        self.scorer = scorer
        self.options = options
        self.workers = options.workers or _cores()
        self.pool: DevicePool | None = None  # processes that tag instead of this one
        self.batch = scorer.batch  # most photos at a time
        self.labels = scorer.label_set.labels
        self._limits = PhotoLimits(options.max_pixels, options.max_bytes, options.max_seconds)
        self._choose = TagSelector(self.labels, scorer.label_set.thresholds, options.choice)

    @classmethod
    def load(cls, model: str = "mini", **options: Any) -> "Tagger":
        """A tagger for a bundle's name or folder, or a peer such as `clip:FOLDER`.

        `options` are the fields of `TaggerOptions`. Raises UsageProblem or RunProblem that says
        what is missing.
        """
        wanted = TaggerOptions(**options)
        wanted.check()
        devices = split_devices(wanted.device)
        if len(devices) > 1:
            one = cls.load(model, **options | {"device": devices[0]})
            one.options = wanted
            shared = {name: options[name] for name in options if name not in ("device", "say")}
            one.pool = DevicePool(partial(cls.load, model, **shared), devices, wanted.say)
            return one
        kind, colon, _ = model.partition(":")
        if colon and "/" not in kind and kind != "hf":
            return cls(PeerScorer(model, wanted), wanted)
        return cls(BundleScorer(Bundle.open(resolve_model(model)), wanted), wanted)

    @property
    def description(self) -> str:
        """Device, runtime and batch size, for people."""
        one = self.scorer.description
        return one if self.pool is None else f"{self.options.device}, {one} each"

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that the records depend on besides the photos, for `--resume`."""
        options, thresholds = self.options, self.scorer.label_set.thresholds
        choice = [options.choice.key, options.dense, options.boxes, options.caption]
        choice.append(options.max_pixels)
        choice += [x for x in (options.specified_tags, options.caption_length) if x is not None]
        return self.scorer.fingerprint | {
            "labels": self.labels.sha256,
            "thresholds": blake2b(thresholds.tobytes(), digest_size=16).hexdigest(),
            "choice of tags": blake2b(repr(choice).encode(), digest_size=16).hexdigest(),
        }

    def tag(self, photos: Iterable[str | os.PathLike[str]]) -> Iterator[JsonObject]:
        """The record of each photo in order; raises RecordProblem at one that cannot be tagged.

        A photo is a path or `shard.tar#member`. `outcomes` goes on after such a photo.
        """
        for outcome in self.outcomes(photos):
            if isinstance(outcome, RecordProblem):
                raise outcome
            yield outcome

    def outcomes(self, photos: Iterable[str | os.PathLike[str]]) -> Iterator[Outcome]:
        """For each photo in order its record, or a RecordProblem that says why there is none."""
        names = (os.fspath(photo) for photo in photos)
        records = (Record({"image": encode_name(name)}, "python", 1, Path()) for name in names)
        for batch in self.stage(chunks(records, self.batch)):
            yield from batch

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `self.batch` records, in order: a `records.stream.Stage`.

        Photos are decoded ahead. A photo's scores depend neither on its neighbours nor on the
        number of workers.
        """
        if self.pool is not None:
            yield from self.pool.run(batches)
        elif self.scorer.concurrent:
            yield from ordered_map(self._decode_and_score, batches, self.workers)
        else:
            for records, decoded in ordered_map(self.decode, batches, self.workers):
                yield self.score(records, decoded)

    def _decode_and_score(self, records: Batch) -> list[Outcome]:
        return self.score(*self.decode(records))

    def decode(self, records: Batch) -> tuple[Batch, list[Decoded | RecordProblem]]:
        """The records, and for each its photo as the model takes it or why there is none."""
        return records, [attempt(self._decode, record) for record in records]

    def _decode(self, record: Record) -> Decoded:
        photo = record_photo(
            record,
            target=self.scorer.target,
            limits=self._limits,
            official=self.scorer.official,
        )
        return Decoded(self.scorer.prepare(photo), photo.size)

    def score(self, records: Batch, decoded: Sequence[Decoded | RecordProblem]) -> list[Outcome]:
        """The outcomes of a batch of records whose photos were decoded."""
        added = map_good(decoded, self._fields)
        return [
            fields if isinstance(fields, RecordProblem) else self._record(record, fields)
            for record, fields in zip(records, added, strict=True)
        ]

    def _fields(self, decoded: Sequence[Decoded]) -> list[JsonObject]:
        """The fields that tagging adds for each photo."""
        scores = self.scorer.scores([photo.pixels for photo in decoded])
        chosen = [self._choose(row) for row in scores]
        added: list[JsonObject] = [{"tags": list(tags), "scores": tags} for tags in chosen]
        if self.options.dense:
            named = f"sha256:{self.labels.sha256}"
            for fields, row in zip(added, scores, strict=True):
                fields |= {"dense": significant(row, DENSE_DIGITS), "labels": named}
        if self.options.boxes or self.options.caption:
            pairs = zip(scores, chosen, strict=True)
            fired = [self._choose.fired(row, tags) for row, tags in pairs]
            found = self.scorer.annotate(decoded, chosen, self._choose.ids, fired)
            for fields, annotations in zip(added, found, strict=True):
                fields |= annotations
        return added

    def _record(self, record: Record, added: JsonObject) -> JsonObject:
        fields = record.fields
        set_tags(fields, added["tags"])
        fields |= added
        if "kinds" in fields:
            fields["kinds"] = {tag: self._choose.kinds[tag] for tag in added["tags"]}
        return fields


def significant(values: NDArray[np.float32], digits: int) -> NDArray[np.float64]:
    """The values rounded to so many significant digits, so that no more are printed."""
    wide = values.astype(np.float64)
    exponent = np.floor(np.log10(np.maximum(np.abs(wide), 1e-12)))
    factor = 10.0 ** (digits - 1 - exponent)
    rounded: NDArray[np.float64] = np.round(wide * factor) / factor
    # Powers of ten beyond 22 are inexact in floating point: a quotient could have more digits.
    tiny = np.abs(wide) < 1e-12
    rounded[tiny] = [float(f"{value:.{digits}g}") for value in wide[tiny].tolist()]
    return rounded


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
