"""Scores of many photos in little memory: four bytes a number, and one bit a decision.

`N` photos, `C` classes.
"""

import numpy as np
from numpy.typing import NDArray

from ramctl.evaluation.metrics import Floats, Scores, row_blocks

# Numbers with at most six digits stay apart in single precision (C's FLT_DIG).
_DIGITS = 6
_POWERS = np.array([float(f"1e{n}") for n in range(23)])  # those that are doubles
_COLUMNS_AT_ONCE = 64


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
            exact = self.doubles(slice(self._n))
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

    def doubles(self, rows: slice) -> Floats:
        """The scores of some photos as they came."""
        values = self._values[rows]
        if values.dtype == np.float32 and self._is_decimal:
            return _six_digits(values)
        return values.astype(np.float64)

    def _fits(self, block: Floats) -> bool:
        """Whether single precision is enough for a block, by the form that the first one has."""
        single = block.astype(np.float32)
        if self._is_decimal is None:
            self._is_decimal = not np.array_equal(single, block)
        return np.array_equal(_six_digits(single) if self._is_decimal else single, block)

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
        if self._has_gaps:
            for part in row_blocks(values):
                block = values[part]
                block[block == -np.inf] = self.for_none
        return values


def _six_digits(singles: Scores) -> Floats:
    """The doubles with six digits that are nearest to numbers, exact above 1e-16."""
    sizes = np.clip(np.abs(singles), 1e-17, 10.0 ** (_DIGITS - 1))
    scale = _POWERS.take((_DIGITS - 1 - np.floor(np.log10(sizes))).astype(np.intp), mode="clip")
    decimal: Floats = np.rint(singles * scale) / scale
    return decimal


def take_rows(values: Scores, rows: NDArray[np.int64]) -> Scores:
    """Some rows of an array, each at most once, in the array's own memory: its content is lost."""
    if not np.array_equal(rows, np.arange(len(rows))):
        for start in range(0, values.shape[1], _COLUMNS_AT_ONCE):
            columns = slice(start, start + _COLUMNS_AT_ONCE)
            values[: len(rows), columns] = values[rows, columns]
    return values[: len(rows)]
