"""What a model says about each photo: a score and a decision for each class.

Only these are kept, about four bytes per photo and class, not the records.
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ramctl.errors import RecordProblem
from ramctl.evaluation.classes import Classes
from ramctl.evaluation.metrics import Decisions, Floats, Scores, row_blocks
from ramctl.evaluation.reading import Intake, PhotoList
from ramctl.evaluation.score_store import ScoreStore, take_rows
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import DEFAULT_THRESHOLD, LabelSystem
from ramctl.readers.predictions import read_predictions
from ramctl.records.record import Item, JsonObject, json_type, string_list

# Tags that a threshold or a top-k cut off have score 0 here; a sigmoid is almost never exactly 0.
_MAX_ZERO_SHARE = 0.1
_BYTES_AT_ONCE = 1 << 20

Number = TypeVar("Number", np.float64, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The labels that count for the classes `which`, one after the other from `starts` on."""

    which: NDArray[np.intp]
    labels: NDArray[np.intp]
    starts: NDArray[np.intp]
    thresholds: Floats  # of all labels
    packed: struct.Struct  # doubles of all labels

    @classmethod
    def of(cls, system: LabelSystem, classes: Classes, cut: Cut) -> "_Columns":
        pairs = [(c, label) for label, tag in enumerate(system.tags) for c in classes.of_tag(tag)]
        if classes.truth_ids and system.tags == classes.names:  # a doubled name is two labels
            pairs = [
                (c, label)
                for c, label in pairs
                if c == label or system.tags[c] != system.tags[label]
            ]
        by_class, labels = np.array(sorted(pairs), np.intp).reshape(-1, 2).T
        which, starts = np.unique(by_class, return_index=True)
        thresholds = cut.for_tags(system, classes.n_listed)
        return cls(which, labels, starts, thresholds, struct.Struct(f"{len(system)}d"))

    def best(self, values: NDArray[Number]) -> NDArray[Number]:
        """The highest value [n, len(which)] of each class's labels, from those of all [n, L]."""
        if len(self.which) == len(self.labels):
            return values.take(self.labels, axis=1)
        mine = values[:, self.labels]
        best: NDArray[Number] = np.maximum.reduceat(mine, self.starts, axis=1)
        return best


class Prediction(NamedTuple):
    """What a record says: doubles by label, or numbers by tag, and the classes of its `tags`."""

    columns: _Columns | None
    packed: bytes
    by_tag: dict[str, float]
    given: list[int] | None


class ScoreReader:
    """Turns records into predictions; `matched` are the classes [C] that some tag counts for.

    The predictions' labels `are_stated` where some line, or `--labels`, lists them all.
    """

    def __init__(self, classes: Classes, cut: Cut) -> None:
        self.classes = classes
        self.cut = cut
        self.matched = np.zeros(len(classes), bool)
        self.are_stated = classes.tag_system is not None
        self._columns: dict[str, _Columns] = {}
        self._latest: _Columns | None = None
        self._thresholds: dict[str, float] = {}

    def read(self, fields: JsonObject) -> Prediction:
        """What a record says; RecordProblem for one without usable scores."""
        columns, packed, by_tag = None, b"", {}
        if fields.get("dense") is not None:
            columns, packed = self._read_dense(fields)
        else:
            by_tag = tag_scores(fields)
        given = None
        if fields.get("tags") is not None:
            tags = string_list(fields, "tags")
            given = [c for tag in tags for c in self.classes.of_tag(tag)]
        return Prediction(columns, packed, by_tag, given)

    def threshold(self, tag: str) -> float:
        """The score above which a tag counts as given."""
        found = self._thresholds.get(tag)
        if found is None:
            ids = self._tag_system.ids(tag)
            found = float(self._tag_thresholds[ids[0]]) if ids else DEFAULT_THRESHOLD
            self._thresholds[tag] = found
        return found

    @cached_property
    def _tag_system(self) -> LabelSystem:
        return self.classes.tag_system or LabelSystem.from_tags(self.classes.strings())

    @cached_property
    def _tag_thresholds(self) -> Floats:
        in_order = self.classes.tag_system is not None
        return self.cut.for_tags(self._tag_system, self.classes.n_listed, in_order=in_order)

    def _read_dense(self, fields: JsonObject) -> tuple[_Columns, bytes]:
        columns = self._columns_for(fields)
        dense = fields["dense"]
        n_labels = len(columns.thresholds)
        if not isinstance(dense, list) or not dense or isinstance(dense[0], bool):
            raise RecordProblem("dense is not a list of numbers", code="bad_field")
        if len(dense) != n_labels:
            message = f"dense has {len(dense)} numbers for {n_labels} labels"
            raise RecordProblem(message, code="bad_field")
        try:
            numbers = columns.packed.pack(*dense)
        except (struct.error, OverflowError) as error:
            raise RecordProblem("dense is not a list of numbers", code="bad_field") from error
        if not math.isfinite(sum(dense)) and not np.isfinite(np.frombuffer(numbers)).all():
            raise RecordProblem("dense holds a number that is not finite", code="bad_field")
        return columns, numbers

    def _columns_for(self, fields: JsonObject) -> _Columns:
        """The columns of the label system that a record's `dense` refers to.

        `label_names` may stand on the first of many lines only, as `tag --dense` writes it.
        """
        key = fields.get("labels")
        key = key if isinstance(key, str) else ""
        known = self.classes.tag_system
        if fields.get("label_names") is not None:
            self._latest = None
            names = string_list(fields, "label_names")
            # Thresholds may name the synonyms that the system of `--labels` has.
            system = known if known and known.tags == names else LabelSystem.from_tags(names)
            self._latest = self._add(key, system)
        columns = self._columns.get(key) if key else self._latest
        if columns is None and known is not None:
            columns = self._add(key, known)
        if columns is None:
            message = "dense without label_names: no line before names its labels (see --labels)"
            raise RecordProblem(message, code="missing_field")
        return columns

    def _add(self, key: str, system: LabelSystem) -> _Columns:
        columns = self._columns[key] = _Columns.of(system, self.classes, self.cut)
        self.matched[columns.which] = self.are_stated = True
        return columns


def tag_scores(fields: JsonObject) -> dict[str, float]:
    """The scores by tag of a prediction; 1 for each tag where there are no scores.

    Raises RecordProblem when there is neither, and for a score that is not a number.
    """
    if fields.get("scores") is None:
        if fields.get("tags") is None:
            raise RecordProblem("no dense, scores or tags field", code="missing_field")
        return dict.fromkeys(string_list(fields, "tags"), 1.0)
    scores = fields["scores"]
    if not isinstance(scores, dict):
        raise RecordProblem(f"scores is not an object (got {json_type(scores)})", code="bad_field")
    for tag, score in scores.items():
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not math.isfinite(score):
            raise RecordProblem(f"the score of {tag!r} is not a number", code="bad_field")
    return scores


@dataclass(slots=True)
class Rows:
    """What predictions say of photos: the scores, and the decisions, eight to a byte.

    Decided by the thresholds of `--threshold`, else by the records' own tags.
    """

    scores: ScoreStore
    decided: list[NDArray[np.uint8]] = field(default_factory=list)
    has_tags: bytearray = field(default_factory=bytearray)


class PredictionTable:
    """The photos of a prediction file with a score and a decision for each class."""

    def __init__(self, reader: ScoreReader, n_expected: int = 0) -> None:
        self.reader = reader
        self.photos = PhotoList()
        self.rows = Rows(ScoreStore(len(reader.classes), n_expected))
        self._waiting: list[Prediction] = []
        self._n_waiting = 0
        self._most_waiting = max(1, _BYTES_AT_ONCE // (8 * max(1, len(reader.classes))))

    def take(self, items: Iterable[Item], intake: Intake) -> None:
        """Add what records say."""
        intake.fill(self.photos, items, self.reader.read, self.keep)
        self.store_kept()

    def keep(self, prediction: Prediction) -> None:
        """Add what one photo's record says, at the latest with `store_kept`."""
        self._waiting.append(prediction)
        self._n_waiting += len(prediction.packed)
        if self._n_waiting >= _BYTES_AT_ONCE or len(self._waiting) >= self._most_waiting:
            self.store_kept()

    def store_kept(self) -> None:
        """Turn what was kept into rows."""
        for columns, group in groupby(self._waiting, lambda prediction: prediction.columns):
            predictions = list(group)
            shape = len(predictions), len(self.reader.classes)
            scores, decided = np.full(shape, -np.inf), np.zeros(shape, bool)
            if columns is None:
                self._spread(predictions, scores, decided)
            else:
                numbers = b"".join(prediction.packed for prediction in predictions)
                values = np.frombuffer(numbers).reshape(len(predictions), -1)
                scores[:, columns.which] = columns.best(values)
                if not self._cut.is_default:
                    above = self._cut.passed_by(values, columns.thresholds)
                    decided[:, columns.which] = columns.best(above)
            self.rows.scores.append(scores)
            self._note_decisions(predictions, scores, decided)
        self._waiting.clear()
        self._n_waiting = 0

    def _spread(self, predictions: list[Prediction], scores: Floats, decided: Decisions) -> None:
        reader = self.reader
        for row, prediction in enumerate(predictions):
            for tag, score in prediction.by_tag.items():
                for c in reader.classes.of_tag(tag):
                    scores[row, c] = max(scores[row, c], score)
                    decided[row, c] |= self._cut.passed_by(score, reader.threshold(tag))
                    reader.matched[c] = True

    def _note_decisions(
        self, predictions: list[Prediction], scores: Floats, decided: Decisions
    ) -> None:
        if self._cut.is_default:
            self.rows.has_tags.extend(one.given is not None for one in predictions)
            decided[:] = False
            for row, prediction in enumerate(predictions):
                if prediction.given:
                    decided[row, prediction.given] = True
        else:
            own = self._class_thresholds
            decided = np.where(np.isnan(own), decided, self._cut.passed_by(scores, own))
        self.rows.decided.append(np.packbits(decided, axis=1))

    @property
    def _cut(self) -> Cut:
        return self.reader.cut

    @cached_property
    def _class_thresholds(self) -> Floats:
        classes = self.reader.classes
        return self._cut.for_classes(classes.system, classes.n_listed)

    @property
    def score_range(self) -> tuple[float, float] | None:
        """The lowest and the highest score; None without any."""
        lowest, highest = self.rows.scores.lowest, self.rows.scores.highest
        return (lowest, highest) if lowest <= highest else None

    @property
    def are_probabilities(self) -> bool:
        """Whether no score is below 0 or above 1."""
        return self.rows.scores.are_probabilities

    @property
    def score_of_none(self) -> float:
        """What a tag without a score counts as."""
        return self.rows.scores.for_none

    def select(self, rows: NDArray[np.int64]) -> tuple[Scores, NDArray[np.uint8], str]:
        """The class scores [N, C] of some photos, the decisions about them, and what made these.

        Decisions are packed, eight to a byte. They are those of `--threshold` where there is one;
        else the records' own `tags`, if all have them; else those of 0.5, or 0 where scores are no
        probabilities. The table is spent: scores of other photos are lost.
        """
        packed = np.concatenate(self.rows.decided)[rows]
        scores = take_rows(self.rows.scores.finish(), rows)
        if not self._cut.is_default:
            return scores, packed, self._cut.description
        if np.frombuffer(self.rows.has_tags, bool)[rows].all():
            return scores, packed, "the predictions' own tags"
        threshold = DEFAULT_THRESHOLD if self.are_probabilities else 0.0
        for part in row_blocks(scores):
            packed[part] = np.packbits(self._cut.passed_by(scores[part], threshold), axis=1)
        return scores, packed, f"{threshold:g}"

    def looks_thresholded(self, scores: Scores) -> bool:
        """Whether scores [N, C] seem to be cut off: then their mAP is a lower bound."""
        none, matched = self.score_of_none, self.reader.matched
        n_none = sum(int((scores[part] == none)[:, matched].sum()) for part in row_blocks(scores))
        return bool(n_none > _MAX_ZERO_SHARE * len(scores) * matched.sum())


def read_table(
    name: str,
    classes: Classes,
    cut: Cut,
    intake: Intake,
    *,
    n_expected: int = 0,
    form: str | None = None,
) -> PredictionTable:
    """The predictions of a file or, for `-`, of standard input, of about so many photos.

    `form` is one of `ramctl.readers.predictions`; None: it is recognised.
    """
    table = PredictionTable(ScoreReader(classes, cut), n_expected)
    table.take(read_predictions(name, intake.stage, form, classes.lists), intake)
    table.photos.close()
    return table
