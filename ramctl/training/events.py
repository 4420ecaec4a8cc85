"""What a training run tells while it goes on."""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, slots=True)
class ValidationEvent:
    """Scores on the validation photos after a step."""

    step: int
    map: float
    n_classes: int  # labels that occur there
    n_photos: int


@dataclass(frozen=True, slots=True)
class CheckpointEvent:
    """The state was saved."""

    step: int
    path: Path


Event = StepEvent | ValidationEvent | CheckpointEvent
