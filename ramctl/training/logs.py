"""What a training run reports as it goes: the events of `--events`."""

from dataclasses import dataclass, fields

from ramctl.errors import RecordProblem
from ramctl.records.record import JsonObject


@dataclass(frozen=True)
class Event:
    """What happened after a step; a log's line has the fields under their own names."""

    step: int

    def to_json(self) -> JsonObject:
        """The event as a line of a log."""
        kind = type(self).__name__.removesuffix("Event").lower()
        return {"event": kind} | {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class StepEvent(Event):
    """One optimiser step; losses are means over the global batch."""

    epoch: int
    loss: float
    losses: dict[str, float]
    lr: float
    grad_norm: float
    photos: int
    rate_img_s: float
    wait_share: float  # of the step's time spent waiting for data
    skipped: bool  # the gradient was not finite
    rejected: dict[int, RecordProblem]

    def to_json(self) -> JsonObject:
        """The event as a line of a log; rejected photos have a stream of their own."""
        table = super().to_json()
        del table["rejected"]
        rounded = {"rate_img_s": round(self.rate_img_s, 2), "wait_share": round(self.wait_share, 4)}
        return table | rounded

    def describe(self, total_steps: int) -> str:
        """The event as a line for people."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        skipped = ", skipped (gradient not finite)" if self.skipped else ""
        return (
            f"step {self.step}/{total_steps}, epoch {self.epoch}: loss {self.loss:.4g} "
            f"({losses}), lr {self.lr:.3g}, {self.rate_img_s:.1f} images/s, "
            f"{self.wait_share:.0%} waiting for data{skipped}"
        )


@dataclass(frozen=True)
class ValidationEvent(Event):
    """Scores on the validation photos after a step."""

    map: float  # over the labels with evidence
    classes: int  # labels with evidence that occur in the validation photos
    map_all: float  # labels that were never trained, or next to never, included
    classes_all: int
    photos: int

    def describe(self) -> str:
        """The event as a line for people."""
        others = ""
        if self.classes < self.classes_all:
            others = f" ({self.map_all:.4f} over all {self.classes_all})"
        labels = f"{self.classes} labels{others}"
        return f"mAP {self.map:.4f} over {labels}, {self.photos} validation photos"


@dataclass(frozen=True)
class CheckpointEvent(Event):
    """The state was saved."""

    path: str
