"""`--threshold` of the data engine's commands."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import orjson

from ramctl.bundle import Bundle
from ramctl.errors import UsageProblem
from ramctl.labels import LabelSystem, read_thresholds

LOWEST = "lowest:"
# A tag that a caption names needs less of the model's agreement than one from nothing. At the
# model's own thresholds cleaning took 46 % of the right tags with the planted ones, at this share
# of them 8 %, outliers included (scripts/reproduce/planted.mk).
SHARE_TO_KEEP = 0.35


def global_or_file(text: str | None, bundle: Bundle) -> list[float]:
    """One threshold a label: the number, the file's, or without either the model's own."""
    if text is None:
        return bundle.thresholds
    try:
        return [_share(text, text)] * len(bundle.labels)
    except ValueError:
        return read_thresholds(Path(text), bundle.labels, bundle.threshold)


def to_keep(text: str | None, bundle: Bundle) -> list[float]:
    """One threshold a label that regions must be above to keep it.

    The number's or the file's; without either `SHARE_TO_KEEP` of the model's own.
    """
    thresholds = global_or_file(text, bundle)
    if text is None:
        thresholds = [SHARE_TO_KEEP * threshold for threshold in thresholds]
    return lowest_of_doubles(thresholds, bundle.labels)


def lowest_share(text: str | None) -> float | None:
    """The share of `lowest:SHARE`; None for other thresholds."""
    if text is None or not text.startswith(LOWEST):
        return None
    try:
        return _share(text.removeprefix(LOWEST), text)
    except ValueError:
        raise UsageProblem(f"--threshold {text}: expected lowest:SHARE, as lowest:0.10") from None


def lowest_of_doubles(thresholds: Sequence[float], labels: LabelSystem) -> list[float]:
    """The thresholds, where a string that several ids have takes their lowest.

    Such a tag is looked at once and scores the maximum over its ids.
    """
    return [
        min(thresholds[other] for other in labels.ids(label.tag))
        if labels.ids(label.tag)[0] == index
        else thresholds[index]
        for index, label in enumerate(labels)
    ]


def thresholds_hash(thresholds: Sequence[float]) -> str:
    """A hash of thresholds, for `--resume`."""
    return hashlib.blake2b(orjson.dumps(list(thresholds)), digest_size=8).hexdigest()


def _share(number: str, text: str) -> float:
    value = float(number)
    if not 0 <= value <= 1:
        raise UsageProblem(f"--threshold {text}: not between 0 and 1")
    return value
