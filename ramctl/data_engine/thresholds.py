"""`--threshold` of the data engine's commands."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ramctl.checkpoints.bundle import CALIBRATION, Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LabelSystem, read_threshold, read_thresholds

# Before the number of `--threshold deviations:NUMBER`, which compares a region with all regions of
# its tag: a model's scores differ from tag to tag by how often it was seen and how well it is
# learnt. On planted errors a number, or a share of the model's own thresholds, found fewer of the
# wrong tags at the same loss of right ones (scripts/reproduce/planted.mk).
DEVIATIONS = "deviations:"
PRECISION = 0.8  # of the tags that `generate` adds


def global_or_file(text: str | None, bundle: Bundle) -> list[float]:
    """One threshold per label: the number, the file's, or by default the model's own."""
    if text is None:
        return bundle.thresholds
    number = read_threshold(text)
    if number is not None:
        return [number] * len(bundle.labels)
    return read_thresholds(Path(text), bundle.labels, bundle.threshold)


def to_add(text: str | None, precision: float | None, bundle: Bundle) -> list[float]:
    """One threshold per label, which scores must exceed to add it.

    By default those at which `PRECISION` of the tags are right, where the model knows what its
    scores are worth, else the model's own.
    """
    if text is not None and precision is not None:
        raise UsageProblem("--precision chooses the thresholds: leave out --threshold")
    if precision is not None:
        return bundle.thresholds_of("fp32", precision)
    if text is not None or not bundle.has(CALIBRATION):
        return global_or_file(text, bundle)
    calibration = bundle.calibration
    try:
        return calibration.thresholds(PRECISION).tolist()
    except RunProblem as problem:
        raise RunProblem(f"{problem}; --precision or --threshold chooses another") from problem


def to_keep(text: str, bundle: Bundle) -> list[float]:
    """One threshold per label, which regions must exceed to keep it: the number, or the file's."""
    return lowest_of_doubles(global_or_file(text, bundle), bundle.labels)


def deviations_of(text: str) -> float | None:
    """The number of `deviations:NUMBER`; None for other thresholds."""
    if not text.startswith(DEVIATIONS):
        return None
    with suppress(ValueError):
        number = float(text.removeprefix(DEVIATIONS))
        if 0 <= number < math.inf:
            return number
    raise UsageProblem(f"--threshold {text}: expected deviations:NUMBER, as deviations:1")


def lowest_of_doubles(thresholds: Sequence[float], labels: LabelSystem) -> list[float]:
    """The thresholds, where a string with several ids takes their lowest.

    Such a tag is examined once and scores the maximum over its ids.
    """
    return [
        min(thresholds[other] for other in labels.ids(label.tag))
        if labels.ids(label.tag)[0] == index
        else thresholds[index]
        for index, label in enumerate(labels)
    ]
