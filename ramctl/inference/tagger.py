"""Photos in, records with tags out: the library behind `ramctl tag`."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple, cast, overload

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import RecordProblem, UsageProblem
from ramctl.inference.device_pool import run_on_devices, split_devices
from ramctl.inference.embedding import PhotoAxes
from ramctl.inference.onnx_engine import ONNX, choose_runtime, open_graphs
from ramctl.inference.peers import PeerRunner, is_peer
from ramctl.inference.runner import WARN, ModelPhoto, ModelRunner, Runner, RunnerOptions, mute
from ramctl.inference.selection import DECIMALS, Choice, SelectionOptions, TagSelector
from ramctl.inference.thresholds import Threshold
from ramctl.inference.vocabulary import (
    Vocabulary,
    Words,
    open_vocabulary,
    plain_vocabulary,
    read_words,
)
from ramctl.photos.decoding import PHOTO_KINDS, Photo, photo_record
from ramctl.records.jsonl import content_stamp
from ramctl.records.parallel import chunks
from ramctl.records.record import JsonObject, Record, set_tags

Outcome = JsonObject | RecordProblem
Batch = list[Record]


_CHOICES = {"runtime": ("auto", "onnx", "torch"), "dtype": ("auto", "fp32", "bf16", "fp16", "int8")}


@dataclass(frozen=True, slots=True)
class TaggerOptions(RunnerOptions):
    """How photos are tagged; the defaults are those of `ramctl tag`."""

    labels: Words | None = None  # the only words to look for; +FILE: besides the labels
    threshold: Threshold | None = None  # None: the model's, per tag
    precision: float | None = None  # the fraction of the tags that shall be right
    choice: SelectionOptions = field(default_factory=SelectionOptions)
    thorough: bool = False  # look at parts of each photo too
    dense: bool = False  # give the scores of all labels too
    embedding: bool = False  # give a vector to search by
    boxes: bool = False  # give where the model looked for each tag
    caption: bool = False  # give a caption
    runtime: str = "auto"  # or onnx, torch
    notify: Callable[[str], None] = WARN  # called with what the user should know

    def check(self) -> None:
        """UsageProblem for values that click would refuse, from Python."""
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                choices = ", ".join(known)
                raise UsageProblem(f"{name} {value!r} is not one of {choices}")
        numbers = {"batch": self.batch, "jobs": self.workers}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise UsageProblem(f"{name} {number} is less than 1")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UsageProblem(f"precision {self.precision:g} is not between 0 and 1")
        self.choice.check()


class Box(NamedTuple):
    """Where a tag is, in fractions of the photo's width (x) and height (y)."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class TagResult:
    """The tags of a photo, main things first, and what else the options ask for."""

    image: str | None  # the photo's name; None where it has none
    tags: list[str]
    scores: dict[str, float]  # probabilities of the tags, to 4 decimals
    boxes: dict[str, Box]  # empty without `boxes=True`
    caption: str | None  # None without `caption=True`, or where the model would only guess
    dense: list[float] | None  # with `dense=True`: of all labels, in the order of `Tagger.labels`
    record: JsonObject = field(repr=False, compare=False)  # the line that `ramctl tag` writes

    @classmethod
    def from_record(cls, record: JsonObject) -> "TagResult":
        """The result in a record that a tagger made."""
        boxes: JsonObject = record.get("boxes", {})
        return cls(
            image=record.get("image"),
            tags=record["tags"],
            scores=record["scores"],
            boxes={tag: Box(*corners) for tag, (corners, _) in boxes.items()},
            caption=next(iter(record.get("generated_captions", ())), None),
            dense=record.get("dense"),
            record=record,
        )

    def to_dict(self) -> JsonObject:
        """The record, of types that `json.dumps` takes."""
        return self.record


class Tagger:
    """A loaded model with its labels.

    `Tagger.from_pretrained("mini").tag("photo.jpg").tags` are the tags of a photo.
    """

    def __init__(
        self, runner: Runner, vocabulary: Vocabulary, options: TaggerOptions,
        axes: PhotoAxes | None = None,
    ) -> None:  # fmt: skip
        self.runner = runner
        self.vocabulary = vocabulary
        self.options = options
        # Processes that tag instead of this one.
        self.pool: Callable[[Iterator[Batch]], Iterator[list[Outcome]]] | None = None
        self.batch = runner.batch  # most photos at a time
        self.workers = runner.workers
        self.labels = vocabulary.labels
        self._choose = TagSelector(vocabulary, options.choice)
        self._axes = axes  # of embeddings

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] = "mini", **options: Any) -> "Tagger":
        """A tagger for a bundle's name or folder, `hf://owner/name`, or a peer (`clip:FOLDER`).

        The options are those of `ramctl tag`: `threshold=0.4`, `top=5`, `lang="de"`. `labels` takes
        a list of words too, `threshold` a number for each of some tags. More: `runtime` (onnx,
        torch), `batch`, and `notify`, called with what the user should know [a warning of the
        logger `ramctl`].

        Raises UsageProblem for options that are wrong, RunProblem for a model or a part that is
        missing; both are RamctlErrors.
        """
        if "jobs" in options:
            options["workers"] = options.pop("jobs")
        names = {field.name for field in fields(SelectionOptions)} & options.keys()
        choice = SelectionOptions(**{name: options.pop(name) for name in names})
        return cls.open(os.fspath(model), TaggerOptions(choice=choice, **options))

    @classmethod
    def open(cls, model: str, options: TaggerOptions) -> "Tagger":
        """As `from_pretrained`, with the options in one piece."""
        options.check()
        devices = split_devices(options.device)
        if len(devices) > 1:
            tagger = cls.open(model, replace(options, device=devices[0]))
            tagger.options = options
            load = partial(_open_on, model, replace(options, notify=mute))
            tagger.pool = partial(run_on_devices, load, devices, options.notify)
            return tagger
        if options.embedding and (is_peer(model) or options.labels is not None):
            raise UsageProblem("--embedding needs a bundle and its labels (no --labels)")
        if is_peer(model):
            tagger = cls(*_open_peer(model, options), options)
        else:
            bundle = Bundle.open(resolve_model(model))
            axes = PhotoAxes.from_bundle(bundle) if options.embedding else None
            tagger = cls(*open_runner(bundle, options), options, axes)
        untrained = f"labels always score 0: {model} was not trained on them"
        if names := tagger.runner.unknown:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            options.notify(f"{len(names)} {untrained}: {shown}")
        return tagger

    @property
    def description(self) -> str:
        """Device, runtime and batch size, for people."""
        description = self.runner.description
        return description if self.pool is None else f"{self.options.device}, {description} each"

    @property
    def fingerprint(self) -> dict[str, str]:
        """Hashes of all that the records depend on besides the photos, for `--resume`."""
        options, choice = self.options, self.options.choice
        settings: dict[str, Any] = {
            "--labels": options.labels and f"{self.vocabulary.listed} {self.labels.sha256}",
            "--threshold": options.threshold is not None and self.vocabulary.thresholds.tolist(),
            "--precision": options.precision, "--top": choice.top, "--lang": choice.lang,
            "--dense": options.dense, "--boxes": options.boxes, "--caption": options.caption,
            "--embedding": self._axes and self._axes.stamp,
        }  # fmt: skip
        return self.runner.fingerprint | {
            name: content_stamp(repr(value).encode()) for name, value in settings.items() if value
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

        A photo is a path, `shard.tar#member`, the content of a file, a PIL image, or an array of
        bytes (height, width, 3) in the order RGB. From an iterator photos are taken as results are
        needed, so that any number needs little memory.

        Raises RecordProblem at a photo that cannot be tagged (`outcomes` goes on after it), and
        TypeError for what is no photo.
        """
        if isinstance(photos, PHOTO_KINDS):
            (outcome,) = self._outcomes([(cast(Photo, photos), "the photo")])
            return _raised(outcome)
        results = map(_raised, self.outcomes(photos))
        return list(results) if isinstance(photos, Sequence) else results

    def outcomes(self, photos: Iterable[Photo]) -> Iterator[TagResult | RecordProblem]:
        """The result of each photo in order, or the RecordProblem that prevents it."""
        if isinstance(photos, (*PHOTO_KINDS, Mapping, Set)) or not isinstance(photos, Iterable):
            kind = type(photos).__name__
            raise TypeError(f"photos: not a list or an iterator of photos, but a {kind}")
        return self._outcomes((photo, f"photos[{n}]") for n, photo in enumerate(photos))

    def _outcomes(self, photos: Iterable[tuple[Photo, str]]) -> Iterator[TagResult | RecordProblem]:
        """The outcomes of photos, each with a name for messages in case it has none."""
        official = self.runner.official
        records = (photo_record(photo, place, official) for photo, place in photos)
        for batch in self.stage(chunks(records, self.batch)):
            for item in batch:
                yield item if isinstance(item, RecordProblem) else TagResult.from_record(item)

    def stage(self, batches: Iterator[Batch]) -> Iterator[list[Outcome]]:
        """Outcomes of batches of at most `self.batch` records, in order: a `records.stream.Stage`.

        Photos are decoded ahead. A photo's scores depend neither on its neighbours nor on the
        number of workers.
        """
        if self.pool is not None:
            return self.pool(batches)
        return self.runner.run(batches, self.runner.read, self.work)

    def work(self, photos: Sequence[ModelPhoto]) -> list[JsonObject]:
        """The records of the photos with their tags."""
        scores, first = self.runner.scores_of(photos)
        chosen = [*map(self._choose, scores, first.tolist())]
        annotations: list[JsonObject] = [{}] * len(photos)
        if self.options.boxes or self.options.caption:
            annotations = self._annotate(photos, chosen)
        tagged = []
        for photo, choice, row, more in zip(photos, chosen, scores, annotations, strict=True):
            fields, tags = photo.record.fields, list(choice.scores)
            if "dense" in fields:  # of an earlier tagger, as are the fields below
                del fields["dense"]
                fields.pop("label_names", None)
            fields.pop("tag_language", None)
            if isinstance(fields.get("boxes"), dict):  # else another program's
                del fields["boxes"]
            set_tags(fields, tags)
            fields |= {"tags": tags, "scores": choice.scores}
            if self._choose.language:
                fields["tag_language"] = self._choose.language
            if self.options.dense:
                fields["dense"] = [
                    float(f"{score:.6g}") for score in row[self.vocabulary.columns[1]].tolist()
                ]
            if self._axes is not None:
                fields["embedding"] = self._axes.encode(row)
            fields |= more
            if "kinds" in fields:
                fields["kinds"] = {tag: self.labels[self._choose.ids[tag]].kind for tag in tags}
            tagged.append(fields)
        return tagged

    def _annotate(self, photos: Sequence[ModelPhoto], chosen: Sequence[Choice]) -> list[JsonObject]:
        """`boxes` and `generated_captions` of tagged photos, as far as the options ask for them."""
        runner, ids = self.runner, self._choose.ids
        assert isinstance(runner, ModelRunner)
        # Objects alone get boxes: for a scene or a colour no box is right or wrong.
        things = [
            [tag for tag in choice.scores if self.labels[ids[tag]].kind == "object"]
            for choice in chosen
        ]
        # The model was trained on its tags, not on those of --lang.
        in_label_order = runner.writer is not None and runner.writer.in_label_order
        by_score = [[ids[tag] for tag in choice.scores] for choice in chosen]
        guides = [choice.labels for choice in chosen] if in_label_order else by_score
        each = runner.annotate(
            photos,
            [[ids[tag] for tag in tags] for tags in things],
            [[self.labels[index].tag for index in guide] for guide in guides],
        )
        annotations: list[JsonObject] = []
        for (boxes, caption), tags, choice in zip(each, things, chosen, strict=True):
            fields: JsonObject = {}
            if self.options.boxes:  # {tag: [[x0, y0, x1, y1], score]}
                corners = {tag: boxes[ids[tag]].tolist() for tag in tags}
                fields["boxes"] = {
                    tag: [[round(side, DECIMALS) for side in corners[tag]], choice.scores[tag]]
                    for tag in tags
                }
            if self.options.caption:
                fields["generated_captions"] = [] if caption is None else [caption]
            annotations.append(fields)
        return annotations


def open_runner(bundle: Bundle, options: TaggerOptions) -> tuple[ModelRunner, Vocabulary]:
    """The bundle's model as the options ask for it, and what it looks for."""
    engine = choose_runtime(bundle, options.runtime, options.device, options.dtype)
    graphs = open_graphs(bundle) if engine == ONNX else None
    vocabulary = open_vocabulary(
        bundle, options.labels, options.threshold, options.precision,
        language=bundle.labels.language_code(options.choice.lang), notify=options.notify,
    )  # fmt: skip
    runner = ModelRunner(
        bundle, options, engine, labels=vocabulary.labels,
        # Else only labels that can be given are scored.
        scores_all=options.dense or options.embedding or options.threshold is not None,
        boxes=options.boxes, captions=options.caption,
        thorough=options.thorough, graphs=graphs, notify=options.notify,
    )  # fmt: skip
    return runner, vocabulary


def _open_peer(spec: str, options: TaggerOptions) -> tuple[Runner, Vocabulary]:
    """A tagger of another architecture, `KIND:PATH`, with its labels."""
    if options.runtime == "onnx":
        raise UsageProblem(f"runtime onnx needs a bundle, not {spec}")
    for name in ("boxes", "caption", "precision", "thorough"):
        if getattr(options, name):
            raise UsageProblem(f"--{name} needs a bundle, not {spec}")
    words = [] if options.labels is None else read_words(options.labels).tags
    runner = PeerRunner(spec, words, options)
    vocabulary = plain_vocabulary(runner.peer.labels, runner.peer.threshold)
    return runner, vocabulary.with_threshold(options.threshold)


def _open_on(
    model: str, options: TaggerOptions, device: str, notify: Callable[[str], None]
) -> Tagger:
    return Tagger.open(model, replace(options, device=device, notify=notify))


def _raised(outcome: TagResult | RecordProblem) -> TagResult:
    if isinstance(outcome, RecordProblem):
        raise outcome
    return outcome
