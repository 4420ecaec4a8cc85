"""What a training run tells while it goes on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramctl.errors import RecordProblem


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimiser step; losses are means over the global batch."""

    step: int
    epoch: int
    losses: dict[str, float]
    total: float
    lr: float
    grad_norm: float
    n_photos: int
    rate_img_s: float
    wait_share: float  # of the step's time spent waiting for data
    is_skipped: bool  # the gradient was not finite
    rejected: dict[int, RecordProblem]

    def to_json(self) -> dict[str, Any]:
        """The event as a line of a log."""
        return {
            "event": "step",
            "step": self.step,
            "epoch": self.epoch,
            "loss": self.total,
            "losses": self.losses,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "photos": self.n_photos,
            "rate_img_s": round(self.rate_img_s, 2),
            "wait_share": round(self.wait_share, 4),
            "skipped": self.is_skipped,
        }


@dataclass(frozen=True, slots=True)
class ValidationEvent:
    """Scores on the validation photos after a step."""

    step: int
    map: float
    n_classes: int  # labels that occur there
    n_photos: int

    def to_json(self) -> dict[str, Any]:
        """The event as a line of a log."""
        return {
            "event": "validation",
            "step": self.step,
            "map": self.map,
            "classes": self.n_classes,
            "photos": self.n_photos,
        }


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """The state was saved."""

    step: int
    path: Path

    def to_json(self) -> dict[str, Any]:
        """The event as a line of a log."""
        return {"event": "checkpoint", "step": self.step, "path": str(self.path)}


Event = StepEvent | ValidationEvent | CheckpointEvent
