"""What a photo was given, for Python: the record that `ramctl tag` writes, typed."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ramctl.records.record import JsonObject, decode_name


class Box(NamedTuple):
    """Where the model looked for a tag, in shares of the photo's width (x) and height (y)."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class TagResult:
    """The tags of a photo, by falling score, and what else was asked for."""

    image: str | None  # the photo's name; None where it has none
    tags: list[str]
    scores: dict[str, float]  # probabilities of the tags, to 4 decimals
    boxes: dict[str, Box]  # empty without `boxes=True`
    caption: str | None  # None without `caption=True`
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
            boxes={tag: Box(*corners) for tag, (corners, _) in boxes.items()},
            caption=next(iter(record.get("generated_captions", ())), None),
            dense=None if dense is None else dense.tolist(),
            record=record,
        )
