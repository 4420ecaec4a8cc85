"""What a model says about each photo: a score and a decision for each class.

Only these are kept, about four bytes per photo and class, not the records.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from ramctl.classes import Classes
from ramctl.decide.thresholds import read_thresholds
from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.evaluation.metrics import Decisions, Floats, Scores, row_blocks
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem
from ramctl.readers.caption_formats import read_predictions
from ramctl.records.fields import FOR_PREDICTIONS, require_forms, string_list
from ramctl.records.files import read_lines
from ramctl.records.inputs import open_input
from ramctl.records.jsonl import bounded_lines, loads
from ramctl.records.pipes import STDIN, is_pipe
from ramctl.records.record import Item, JsonObject, Record, encode_name
from ramctl.records.report import Rejects
from ramctl.tagger_scores import Photo, PhotoList, tag_scores

# Tags that a threshold or a top-k cut off have score 0 here; a sigmoid is almost never exactly 0.
_MAX_ZERO_FRACTION = 0.1
_BYTES_AT_ONCE = 1 << 17  # for which the memory of the last ones is taken again
_COLUMNS_AT_ONCE = 64
_DENSE = re.compile(rb'"dense"\s*:\s*\[')
# Numbers with at most six digits stay apart in single precision (C's FLT_DIG). By the first bits of
# a single, sign and power of two, the power of ten that makes six digits of it an integer.
_POWERS = (5 - math.floor((bits % 256 - 127) * math.log10(2)) for bits in range(512))
_SCALES = np.array([float(f"1e{min(max(n, 0), 22)}") for n in _POWERS])

Number = TypeVar("Number", np.float64, np.bool_)


class Cut(NamedTuple):
    """What `--threshold` says: a number for all, a file by class or by tag, or nothing.

    A file is JSONL, or a bare list of numbers in the order of the classes or of the tags. A score
    passes when it is greater; with `inclusive`, as the authors' evaluation has it, when it is equal
    too.
    """

    value: float | None = None
    path: Path | None = None
    inclusive: bool = False

    @classmethod
    def parse(cls, text: str | None, *, inclusive: bool = False) -> "Cut":
        """What an option's text says; UsageProblem when it is neither a number nor a file."""
        if text is None:
            return cls(inclusive=inclusive)
        try:
            value = float(text)
        except ValueError:
            if not Path(text).is_file():
                raise UsageProblem(f"--threshold {text}: neither a number nor a file") from None
            return cls(path=Path(text), inclusive=inclusive)
        if not math.isfinite(value):
            raise UsageProblem(f"--threshold {text}: not a finite number")
        return cls(value, inclusive=inclusive)

    def passed_by(self, scores: Any, thresholds: Any) -> Any:
        """Whether scores pass thresholds, for numbers or arrays that fit each other."""
        return scores >= thresholds if self.inclusive else scores > thresholds

    @property
    def is_default(self) -> bool:
        """Whether the option was not given."""
        return self.value is None and self.path is None

    def for_classes(self, classes: LabelSystem, n_listed: int | None) -> Floats:
        """A threshold for each class [C]; NaN where those of its tags decide.

        A line that names a class wins over lines for its tags. A bare list of numbers is in class
        order if there are as many as classes that the user listed (`n_listed`, None without).
        """
        if self.path is None or self._n_numbers not in (None, n_listed):
            return np.full(len(classes), np.nan if self.value is None else self.value)
        return np.array(read_thresholds(self.path, classes, float("nan")))

    def for_tags(self, tags: LabelSystem, n_listed: int | None, *, in_order: bool = True) -> Floats:
        """A threshold for each tag of a label system, 0.5 for tags that the file does not name.

        A bare list of numbers that is not in class order is in the order of the label system;
        RunProblem when it does not fit that either, or tags are not `in_order`.
        """
        numbers = self._n_numbers
        if self.path is None or (numbers is not None and numbers == n_listed):
            return np.full(len(tags), DEFAULT_THRESHOLD)
        if numbers is not None and not in_order:
            message = f"{numbers} thresholds for labels that are not known (see --labels)"
            raise RunProblem(f"{self.path}: {message}")
        if numbers not in (None, len(tags)):
            message = f"{numbers} thresholds fit neither the classes nor the {len(tags)} tags"
            raise RunProblem(f"{self.path}: {message}")
        return np.array(read_thresholds(self.path, tags, DEFAULT_THRESHOLD))

    @property
    def _n_numbers(self) -> int | None:
        """The length of a bare list; None for JSONL, and without a file."""
        lines = [] if self.path is None else [x for x in read_lines(self.path) if x.strip()]
        return len(lines) if lines and not lines[0].lstrip().startswith("{") else None


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The labels that count for the classes `which`, one after the other from `starts` on."""

    which: NDArray[np.intp]
    labels: NDArray[np.intp]
    starts: NDArray[np.intp]
    thresholds: Floats  # of all labels

    @classmethod
    def of(cls, system: LabelSystem, classes: Classes, cut: Cut) -> "_Columns":
        pairs = [(c, label) for label, tag in enumerate(system.tags) for c in classes.of_tag(tag)]
        by_class, labels = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
        which, starts = np.unique(by_class, return_index=True)
        thresholds = cut.for_tags(system, classes.n_listed)
        return cls(which, labels, starts, thresholds)

    def best(self, values: NDArray[Number]) -> NDArray[Number]:
        """The highest value [n, len(which)] of each class's labels, from those of all [n, L]."""
        if len(self.which) == len(self.labels):
            return values.take(self.labels, axis=1)
        return np.asarray(np.maximum.reduceat(values[:, self.labels], self.starts, axis=1))


class Prediction(NamedTuple):
    """What a record says: numbers by label or by tag, and the classes of its `tags`."""

    columns: _Columns | None
    dense: Floats
    by_tag: dict[str, float]
    tagged: list[int] | None


class ScoreReader:
    """Turns records into predictions; `matched` are the classes [C] that some tag counts for.

    The predictions' labels `are_stated` where some line, or `--labels`, lists them all. `file` is
    where lines further on may do so: a run that was resumed has its first photo anywhere.
    """

    def __init__(self, classes: Classes, cut: Cut, file: str = STDIN) -> None:
        self.classes, self.cut, self._file = classes, cut, file
        self.matched = np.zeros(len(classes), bool)
        self.are_stated = classes.tag_system is not None
        self._columns: dict[str, _Columns] = {}  # by the hash of their names; "": the latest ones
        self._sought: set[str] = set()  # labels whose names no line of the file has
        self.threshold = cache(self._threshold)
        self._parser: Any = simdjson.Parser()

    def loads(self, line: bytes) -> JsonObject:
        """The object of a line as by `loads`, a list of numbers `dense` as an array of doubles."""
        if found := _DENSE.search(line):
            rest = b"%bnull%b" % (line[: found.end() - 1], line[line.find(b"]", found.end()) + 1 :])
            # What is not plainly a record with one list of numbers is read, or refused, as ever.
            try:
                doubles = np.frombuffer(self._parser.parse(line)["dense"].as_buffer(of_type="d"))
                fields = loads(rest)
            except (ValueError, TypeError, LookupError, AttributeError, RuntimeError):
                return loads(line)
            if rest.count(b'"dense"') == 1 and fields.get("dense", 0) is None:
                return fields | {"dense": doubles}
        return loads(line)

    def read(self, fields: JsonObject) -> Prediction:
        """What a record says; RecordProblem for one without usable scores."""
        columns, dense, by_tag = None, np.empty(0), {}
        if fields.get("dense") is not None:
            # First of all: where the record is rejected, its names are still those of what follows.
            columns = self._columns_for(fields)
        require_forms(fields, FOR_PREDICTIONS)
        if columns is None:
            by_tag = tag_scores(fields)
        elif len(dense := np.asarray(fields["dense"], np.float64)) != len(columns.thresholds):
            message = f"dense has {len(dense)} numbers for {len(columns.thresholds)} labels"
            raise RecordProblem(message, code="bad_field")
        tagged = None
        if fields.get("tags") is not None:
            tagged = [c for tag in fields["tags"] for c in self.classes.of_tag(tag)]
        return Prediction(columns, dense, by_tag, tagged)

    def _threshold(self, tag: str) -> float:
        """The score above which a tag counts as given."""
        system, thresholds = self._tags
        return float(thresholds[ids[0]]) if (ids := system.ids(tag)) else DEFAULT_THRESHOLD

    @cached_property
    def _tags(self) -> tuple[LabelSystem, Floats]:
        known, n_listed = self.classes.tag_system, self.classes.n_listed
        system = known or LabelSystem.from_tags(self.classes.strings())
        return system, self.cut.for_tags(system, n_listed, in_order=known is not None)

    def _columns_for(self, fields: JsonObject) -> _Columns:
        """The columns of the label system that a record's `dense` refers to.

        `label_names` may stand on the first of many lines only, as `tag --dense` writes it.
        """
        key = fields.get("labels")
        key = key if isinstance(key, str) else ""
        known = self.classes.tag_system
        if fields.get("label_names") is not None:
            self._columns.pop("", None)
            names = string_list(fields, "label_names")
            # Thresholds may name the synonyms that the system of `--labels` has.
            system = known if known and known.tags == names else LabelSystem.from_tags(names)
            self._columns[""] = self._add(key, system)
        if key not in self._columns:
            system = known or LabelSystem.from_tags(self._names_further_on(key))
            if not system:
                message = "dense without label_names: no line names its labels (see --labels)"
                raise RecordProblem(message, code="missing_field")
            self._add(key, system)
        return self._columns[key]

    def _names_further_on(self, key: str) -> list[str]:
        """The names of the labels that the hash `key` stands for, from any line of the file."""
        if not key or key in self._sought or is_pipe(self._file):
            return []
        self._sought.add(key)
        with open_input(self._file) as stream:
            for line in bounded_lines(stream):
                if b'"label_names"' in line:
                    with suppress(orjson.JSONDecodeError, RecordProblem, AttributeError):
                        fields = orjson.loads(line)
                        if fields.get("labels") == key:
                            return string_list(fields, "label_names")
        return []

    def _add(self, key: str, system: LabelSystem) -> _Columns:
        columns = self._columns[key] = _Columns.of(system, self.classes, self.cut)
        self.matched[columns.which] = self.are_stated = True
        return columns


class ScoreStore:
    """Scores [N, C] in the order in which they come; minus infinity stands for no score.

    They are kept in single precision where that loses nothing that tells two scores apart: numbers
    that it holds exactly, or numbers of six digits, as `tag --dense` writes them (above 1e-16).
    With the first others all become double.
    """

    def __init__(self, n_columns: int, n_expected: int) -> None:
        self._values: Scores = np.empty((max(n_expected, 1), n_columns), np.float32)
        self._n = 0
        self._is_decimal: bool | None = None
        self._has_gaps = False
        self.lowest, self.highest = np.inf, -np.inf

    def append(self, block: Floats) -> None:
        """Add the scores [n, C] of some photos."""
        if self._values.dtype == np.float32 and not self._fits(block):
            exact = self._exact(self._values[: self._n])
            self._values = np.empty(self._values.shape)
            self._values[: self._n] = exact
        needed = self._n + len(block)
        if needed > len(self._values):
            # In place where the system can move pages; an eighth more, so that it is seldom.
            rows = max(needed, len(self._values) * 9 // 8)
            self._values.resize((rows, self._values.shape[1]), refcheck=False)
        self._values[self._n : needed] = block
        self._n = needed
        scores = block > -np.inf
        self._has_gaps |= not scores.all()
        self.lowest = min(self.lowest, float(block.min(initial=np.inf, where=scores)))
        self.highest = max(self.highest, float(block.max(initial=-np.inf)))

    def _exact(self, singles: Scores) -> Scores:
        """Scores as they came."""
        return _six_digits(singles) if self._is_decimal else singles

    def _fits(self, block: Floats) -> bool:
        """Whether single precision is enough for a block, by the form that the first one has."""
        single = block.astype(np.float32)
        if self._is_decimal is None:
            self._is_decimal = not np.array_equal(single, block)
        return np.array_equal(self._exact(single), block)

    @property
    def are_probabilities(self) -> bool:
        """Whether no score is below 0 or above 1."""
        return self.lowest >= 0 and self.highest <= 1

    @property
    def for_none(self) -> float:
        """What no score counts as: 0 where no score is below that, else less than the lowest."""
        return 0.0 if self.lowest >= 0 else float(np.floor(self.lowest)) - 1

    def finish(self) -> Scores:
        """All scores, with numbers for those that are missing."""
        values = self._values[: self._n]
        for part in row_blocks(values) if self._has_gaps else ():
            block = values[part]
            block[block == -np.inf] = self.for_none
        return values


def _six_digits(singles: Scores) -> Floats:
    """The doubles with six digits that are nearest to numbers, exact above 1e-16."""
    scale = _SCALES.take(singles.view(np.uint32) >> 23)
    return np.asarray(np.rint(singles * scale) / scale)


def take_rows(values: Scores, rows: NDArray[np.int64]) -> Scores:
    """Some rows of an array, each at most once, in the array's own memory: its content is lost."""
    if not np.array_equal(rows, np.arange(len(rows))):
        for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
            columns = slice(start, start + _COLUMNS_AT_ONCE)
            values[: len(rows), columns] = values[rows, columns]
    return values[: len(rows)]


class PredictionTable:
    """The photos of a prediction file with a score and a decision for each class."""

    def __init__(self, reader: ScoreReader, n_expected: int = 0) -> None:
        self.reader = reader
        self.photos = PhotoList()
        self.scores = ScoreStore(len(reader.classes), n_expected)
        # By the thresholds of `--threshold`, else by the records' own tags; eight to a byte.
        self._decided: list[NDArray[np.uint8]] = []
        self._has_tags = bytearray()
        self._waiting: list[Prediction] = []
        classes = reader.classes
        self._class_thresholds = reader.cut.for_classes(classes.system, classes.n_listed)

    def keep(self, prediction: Prediction) -> None:
        """Add what one photo's record says, at the latest with `store_kept`."""
        self._waiting.append(prediction)
        widest = max(len(self.reader.classes), len(prediction.dense))
        if 8 * widest * len(self._waiting) >= _BYTES_AT_ONCE:
            self.store_kept()

    def store_kept(self) -> None:
        """Turn what was kept into rows."""
        cut = self.reader.cut
        for columns, group in groupby(self._waiting, lambda prediction: prediction.columns):
            predictions = list(group)
            shape = len(predictions), len(self.reader.classes)
            scores, decided = np.full(shape, -np.inf), np.zeros(shape, bool)
            if columns is None:
                self._spread(predictions, scores, decided)
            else:
                values = np.stack([prediction.dense for prediction in predictions])
                scores[:, columns.which] = columns.best(values)
                if not cut.is_default:
                    above = cut.passed_by(values, columns.thresholds)
                    decided[:, columns.which] = columns.best(above)
            self.scores.append(scores)
            if cut.is_default:
                self._has_tags.extend(one.tagged is not None for one in predictions)
                decided[:] = False
                for row, prediction in enumerate(predictions):
                    if prediction.tagged:
                        decided[row, prediction.tagged] = True
            else:
                by_class = self._class_thresholds
                decided = np.where(np.isnan(by_class), decided, cut.passed_by(scores, by_class))
            self._decided.append(np.packbits(decided, axis=1))
        self._waiting.clear()

    def _spread(self, predictions: list[Prediction], scores: Floats, decided: Decisions) -> None:
        reader = self.reader
        for row, prediction in enumerate(predictions):
            for tag, score in prediction.by_tag.items():
                for c in reader.classes.of_tag(tag):
                    scores[row, c] = max(scores[row, c], score)
                    decided[row, c] |= reader.cut.passed_by(score, reader.threshold(tag))
                    reader.matched[c] = True

    def select(self, rows: NDArray[np.int64]) -> tuple[Scores, NDArray[np.uint8], str]:
        """The class scores [N, C] of some photos, the decisions about them, and what made these.

        Decisions are packed, eight to a byte. They are those of `--threshold` where there is one;
        else the records' own `tags`, if all have them; else those of 0.5, or 0 where scores are no
        probabilities. The table is spent: scores of other photos are lost.
        """
        cut = self.reader.cut
        packed = np.concatenate(self._decided)[rows]
        scores = take_rows(self.scores.finish(), rows)
        if not cut.is_default:
            return scores, packed, str(cut.path or cut.value)
        if np.frombuffer(self._has_tags, bool)[rows].all():
            return scores, packed, "the predictions' own tags"
        threshold = DEFAULT_THRESHOLD if self.scores.are_probabilities else 0.0
        for part in row_blocks(scores):
            packed[part] = np.packbits(cut.passed_by(scores[part], threshold), axis=1)
        return scores, packed, f"{threshold:g}"

    def looks_thresholded(self, scores: Scores) -> bool:
        """Whether scores [N, C] seem to be cut off: then their mAP is a lower bound."""
        none, matched = self.scores.for_none, self.reader.matched
        n_none = sum(int((scores[part] == none)[:, matched].sum()) for part in row_blocks(scores))
        return bool(n_none > _MAX_ZERO_FRACTION * len(scores) * matched.sum())


def read_table(
    name: str,
    classes: Classes,
    cut: Cut,
    rejects: Rejects,
    *,
    photos: Sequence[Photo] = (),
    form: str | None = None,
) -> PredictionTable:
    """The predictions of a file or, for `-`, of standard input, of about the truth's `photos`.

    `form` is one of `ramctl.readers.caption_formats.PREDICTION_FORMS`; None: it is recognised.
    """
    table = PredictionTable(ScoreReader(classes, cut, name), len(photos))
    if name.endswith(".npy"):
        if classes.tag_system is None and classes.n_listed is None:
            raise UsageProblem(f"{name}: name the labels of its columns by --labels or --classes")
        items = _read_array(name, photos, classes.tag_system or classes.system)
    else:
        items = read_predictions(name, rejects.report.command, form, table.reader.loads, forms={})
    table.photos.fill(items, rejects, table.reader.read, table.keep)
    table.store_kept()
    return table


def _read_array(name: str, photos: Sequence[Photo], labels: LabelSystem) -> Iterator[Item]:
    """The records of an array of scores (N, L); RunProblem where it has another shape."""
    try:
        scores = np.load(name, mmap_mode="r")
    except (OSError, EOFError, ValueError) as error:
        raise RunProblem(f"{name}: {error}") from error
    if scores.shape != (expected := (len(photos), len(labels))):
        rows = "a row for each photo of the truth, a column for each label"
        raise RunProblem(f"{name}: {scores.shape}, expected {expected}: {rows}")
    names = {"label_names": labels.tags}
    for number, (photo, row) in enumerate(zip(photos, scores, strict=True), 1):
        fields = {"image": encode_name(photo.name), "dense": row.tolist()} | names
        yield Record(fields, name, number, photo.base)
        names = {}
