"""Photos in, records with tags out: the library behind `ramctl tag`."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Literal, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import RecordProblem, UsageProblem, attempt
from ramctl.inference.device_pool import DevicePool, split_devices
from ramctl.inference.label_set import Threshold, Words
from ramctl.peers import peer_spec
from ramctl.photos.decoding import PHOTO_KINDS, Photo, photo_record, record_photo
from ramctl.photos.limits import LIMITS, PhotoLimits
from ramctl.records.parallel import chunks, map_good, ordered_map, usable_cores
from ramctl.records.record import JsonObject, Record, decode_name, set_tags
from ramctl.tagging.embedding import PhotoAxes
from ramctl.tagging.scorers import BundleScorer, Decoded, PeerScorer, Scorer, TaggerOptions, mute
from ramctl.tagging.selection import SelectionOptions, TagSelector

Outcome = JsonObject | RecordProblem
Batch = list[Record]
Kind = Literal["object", "scene", "attribute", "action"]
DENSE_DIGITS = 6


class Box(NamedTuple):
    """Where the model looked for a tag, in shares of the photo's width (x) and height (y)."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class TagResult:
    """The tags of a photo, what it is of first, and what else was asked for."""

    image: str | None  # the photo's name; None where it has none
    tags: list[str]
    scores: dict[str, float]  # probabilities of the tags, to 4 decimals
    salience: dict[str, float]  # chances that tags name a main thing; empty: the model has none
    boxes: dict[str, Box]  # empty without `boxes=True`
    caption: str | None  # None without `caption=True`, or where the model would only guess
    dense: list[float] | None  # with `dense=True`: of all labels, in the order of `Tagger.labels`
    record: JsonObject = field(repr=False, compare=False)  # the line that `ramctl tag` writes

    @classmethod
    def of(cls, record: JsonObject) -> "TagResult":
        """The result in a record that a tagger made."""
        boxes: JsonObject = record.get("boxes", {})
        dense = record.get("dense")
        return cls(
            image=decode_name(record["image"]) if "image" in record else None,
            tags=record["tags"],
            scores=record["scores"],
            salience=record.get("salience", {}),
            boxes={tag: Box(*corners) for tag, (corners, _) in boxes.items()},
            caption=next(iter(record.get("generated_captions", ())), None),
            dense=None if dense is None else dense.tolist(),
            record=record,
        )


class Tagger:
    """A loaded model with its labels.

    `Tagger.from_pretrained("mini").tag("photo.jpg").tags` are the tags of a photo.
    """

    def __init__(
        self, scorer: Scorer, options: TaggerOptions, axes: PhotoAxes | None = None
    ) -> None:
        self.scorer = scorer
        self.options = options
        self.workers = options.workers or usable_cores()
        self.pool: DevicePool | None = None  # processes that tag instead of this one
        self.batch = scorer.batch  # most photos at a time
        self.labels = scorer.label_set.labels
        self._choose = TagSelector(scorer.label_set, options.choice)
        self._axes = axes  # of embeddings, where they are asked for

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = "mini",
        *,
        labels: Words | None = None,
        keep_labels: bool = False,
        threshold: Threshold | None = None,
        precision: float | None = None,
        top_k: int | None = None,
        sort: Literal["salience", "score"] = "salience",
        kinds: Collection[Kind] | None = None,
        include: Collection[str] | None = None,
        exclude: Collection[str] = (),
        leaf: bool = False,
        language: str | None = None,
        thorough: bool = False,
        dense: bool = False,
        boxes: bool = False,
        caption: bool = False,
        caption_style: Literal["short", "dense"] | None = None,
        preprocess: Literal["official", "fast"] | None = None,
        runtime: Literal["auto", "onnx", "torch"] = "auto",
        device: str = "auto",
        dtype: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto",
        batch_size: int | None = None,
        num_workers: int | None = None,
        threads: int | None = None,
        limits: PhotoLimits = LIMITS,
        say: Callable[[str], None] = mute,
    ) -> "Tagger":
        """A tagger for a bundle's name or folder, `hf://owner/name`, or a peer (`clip:FOLDER`).

        The options are those of `ramctl tag`:

        labels: words to look for instead of the model's labels, or a file of them (`--labels`);
            keep_labels: besides the model's labels.
        threshold: tags score more than this: a number, one for each of some tags, or a file;
            precision: the share of tags that shall be right, instead.
        top_k: at most so many tags; sort: what comes first.
        kinds, include, exclude, leaf, language: which tags.
        thorough: look at parts of each photo too: more tags, 3 to 5 times as long.
        boxes, caption, dense: what to give besides tags and their scores.
        caption_style: of a model that has learnt both.
        device: auto, cpu, cuda, cuda:0, mps, or several: cuda:0,1.
        batch_size: photos at a time; num_workers: threads that decode, and run the graph;
            threads: of one run of the model.
        limits: the pixels, bytes and seconds of decoding that a photo may cost.
        say: called with what the user should know.

        Raises UsageProblem for options that are wrong, RunProblem for a model or a part that is
        missing; both are RamctlErrors.
        """
        choice = SelectionOptions(
            top=top_k, include=include, exclude=exclude, leaf=leaf, language=language, kinds=kinds,
            sort=sort,
        )  # fmt: skip
        options = TaggerOptions(
            labels=labels, keep_labels=keep_labels, threshold=threshold, precision=precision,
            choice=choice, thorough=thorough, dense=dense, boxes=boxes, caption=caption,
            caption_style=caption_style, preprocess=preprocess, runtime=runtime, device=device,
            dtype=dtype, batch=batch_size, workers=num_workers, threads=threads, limits=limits,
            say=say,
        )  # fmt: skip
        return cls.open(os.fspath(model), options)

    @classmethod
    def open(cls, model: str, options: TaggerOptions) -> "Tagger":
        """As `from_pretrained`, with the options in one piece."""
        options.check()
        devices = split_devices(options.device)
        if len(devices) > 1:
            one = cls.open(model, replace(options, device=devices[0]))
            one.options = options
            load = partial(_open_on, model, replace(options, say=mute))
            one.pool = DevicePool(load, devices, options.say)
            return one
        peer = peer_spec(model)
        if options.embedding and (peer or options.labels is not None):
            raise UsageProblem("embeddings are of a bundle's own labels (--labels, --model)")
        if peer:
            return cls(PeerScorer(peer, options), options)
        bundle = Bundle.open(resolve_model(model))
        axes = PhotoAxes.of(bundle) if options.embedding else None
        return cls(BundleScorer(bundle, options), options, axes)

    @property
    def description(self) -> str:
        """Device, runtime and batch size, for people."""
        one = self.scorer.description
        return one if self.pool is None else f"{self.options.device}, {one} each"

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that the records depend on besides the photos, for `--resume`."""
        options, thresholds = self.options, self.scorer.label_set.thresholds
        choice = [options.choice.key, options.dense, options.boxes]
        choice.append(options.caption_style or options.caption)
        choice += [options.limits.pixels, self._axes and self._axes.stamp]
        return self.scorer.fingerprint | {
            "labels": self.labels.sha256,
            "thresholds": blake2b(thresholds.tobytes(), digest_size=16).hexdigest(),
            "choice of tags": blake2b(repr(choice).encode(), digest_size=16).hexdigest(),
        }

    @overload
    def tag(self, photos: Photo) -> TagResult: ...  # type: ignore[overload-overlap]

    @overload
    def tag(self, photos: Sequence[Photo]) -> list[TagResult]: ...  # type: ignore[overload-overlap]

    @overload
    def tag(self, photos: Iterable[Photo]) -> Iterator[TagResult]: ...

    def tag(
        self, photos: Photo | Iterable[Photo]
    ) -> TagResult | list[TagResult] | Iterator[TagResult]:
        """The result of one photo, of each in a list, or of each that an iterator gives.

        A photo is a path, `shard.tar#member`, the content of a file, an open file, a PIL image, or
        an array of bytes (height, width, 3) in the order RGB. From an iterator photos are taken as
        results are asked for, so that any number needs little memory.

        Raises RecordProblem at a photo that cannot be tagged (`outcomes` goes on after it), and
        TypeError for what is no photo.
        """
        if isinstance(photos, PHOTO_KINDS):
            (outcome,) = self._outcomes([(cast(Photo, photos), "the photo")])
            return _raised(outcome)
        results = map(_raised, self.outcomes(photos))
        return list(results) if isinstance(photos, Sequence) else results

    def outcomes(self, photos: Iterable[Photo]) -> Iterator[TagResult | RecordProblem]:
        """For each photo in order its result, or a RecordProblem that says why there is none."""
        if isinstance(photos, PHOTO_KINDS):
            raise TypeError("one photo, where a list or an iterator of photos is expected")
        return self._outcomes((photo, f"photos[{n}]") for n, photo in enumerate(photos))

    def _outcomes(self, photos: Iterable[tuple[Photo, str]]) -> Iterator[TagResult | RecordProblem]:
        """The outcomes of photos, each with what it is called where it has no name."""
        limits, official = self.options.limits, self.scorer.official
        records = (photo_record(photo, place, limits, official) for photo, place in photos)
        for batch in self.stage(chunks(records, self.batch)):
            for one in batch:
                yield one if isinstance(one, RecordProblem) else TagResult.of(one)

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `self.batch` records, in order: a `records.stream.Stage`.

        Photos are decoded ahead. A photo's scores depend neither on its neighbours nor on the
        number of workers.
        """
        if self.pool is not None:
            yield from self.pool.run(batches)
        elif self.scorer.concurrent:
            yield from ordered_map(lambda x: self.score(*self.decode(x)), batches, self.workers)
        else:
            for records, decoded in ordered_map(self.decode, batches, self.workers):
                yield self.score(records, decoded)

    def decode(self, records: Batch) -> tuple[Batch, list[Decoded | RecordProblem]]:
        """The records, and for each its photo as the model takes it or why there is none."""
        return records, [attempt(self._decode, record) for record in records]

    def decode_photo(self, photo: Photo, place: str) -> tuple[Record, Decoded | RecordProblem]:
        """As `decode`, of a photo that `place` names where it has no name itself."""
        record = photo_record(photo, place, self.options.limits, self.scorer.official)
        return record, attempt(self._decode, record)

    def _decode(self, record: Record) -> Decoded:
        target, official, limits = self.scorer.target, self.scorer.official, self.options.limits
        photo = record_photo(record, target=target, limits=limits, official=official)
        return self.scorer.look(photo)

    def score(self, records: Batch, decoded: Sequence[Decoded | RecordProblem]) -> list[Outcome]:
        """The outcomes of a batch of records whose photos were decoded."""
        outcomes: list[Outcome] = []
        for record, added in zip(records, map_good(decoded, self._fields), strict=True):
            if not isinstance(added, RecordProblem):
                fields = record.fields
                if "dense" in fields:  # an earlier tagger's, and so is all else that goes here
                    del fields["dense"]
                    fields.pop("labels", None)
                for name in ("salience", "boxes"):
                    if isinstance(fields.get(name), dict):  # else it is none of a tagger's
                        del fields[name]
                set_tags(fields, added["tags"])
                fields |= added
                if "kinds" in fields:
                    fields["kinds"] = {tag: self._choose.kinds[tag] for tag in added["tags"]}
                added = fields
            outcomes.append(added)
        return outcomes

    def _fields(self, decoded: Sequence[Decoded]) -> list[JsonObject]:
        scores, to_choose = self.scorer.scores_of(decoded)
        chosen = [*map(self._choose, to_choose)]
        added: list[JsonObject] = []
        for choice, row in zip(chosen, scores, strict=True):
            fields: JsonObject = {"tags": list(choice.scores), "scores": choice.scores}
            if choice.salience is not None:
                fields["salience"] = choice.salience
            if self.options.dense:
                fields["dense"] = significant(row, DENSE_DIGITS)
                fields["labels"] = f"sha256:{self.labels.sha256}"
            if self._axes is not None:
                fields["embedding"] = self._axes.encode(row)
            added.append(fields)
        if self.options.boxes or self.options.caption:
            found = self.scorer.annotate(decoded, chosen, self._choose.ids)
            for fields, annotations in zip(added, found, strict=True):
                fields |= annotations
        return added


def _open_on(model: str, options: TaggerOptions, device: str, say: Callable[[str], None]) -> Tagger:
    return Tagger.open(model, replace(options, device=device, say=say))


def _raised(outcome: TagResult | RecordProblem) -> TagResult:
    if isinstance(outcome, RecordProblem):
        raise outcome
    return outcome


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
