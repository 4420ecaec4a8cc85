"""What a training run reports as it goes: events, and where they are written."""

from contextlib import ExitStack
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.errors import RecordProblem, RunProblem
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject


@dataclass(frozen=True)
class Event:
    """What happened after a step; a log's line has the fields under their own names."""

    step: int

    def to_json(self) -> JsonObject:
        """The event as a line of a log."""
        kind = type(self).__name__.removesuffix("Event").lower()
        return {"event": kind} | {f.name: getattr(self, f.name) for f in fields(self)}

    def scalars(self) -> dict[str, float]:
        """The event as TensorBoard's curves: none, unless a kind of event has some."""
        return {}


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

    def scalars(self) -> dict[str, float]:
        """The event as TensorBoard's curves."""
        return {
            "loss/total": self.loss,
            **{f"loss/{name}": value for name, value in self.losses.items()},
            "training/learning_rate": self.lr,
            "training/gradient_norm": self.grad_norm,
            "training/epoch": self.epoch,
            "speed/images_per_second": self.rate_img_s,
            "speed/data_wait_share": self.wait_share,
        }

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

    def scalars(self) -> dict[str, float]:
        """The event as TensorBoard's curves."""
        return {"validation/mAP": self.map}

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


@dataclass(frozen=True)
class WandbRun:
    """A run of Weights & Biases: its own variables (WANDB_MODE, WANDB_DIR ...) say the rest."""

    project: str
    name: str
    id: str  # by which a resumed run goes on in the same curves
    config: JsonObject


def require_extra(name: str) -> None:
    """Raise RunProblem where the extra of a kind of log is not installed."""
    if find_spec(name) is None:
        raise RunProblem(f"--{name} needs the extra: pip install 'ramctl[{name}]'")


class EventLogs(ExitStack):
    """The logs that were asked for: a JSONL file, TensorBoard's files in a folder, and W&B's run.

    A run that resumes after step `resumed_at` continues them (None: written anew). TensorBoard then
    hides what the interrupted run wrote of later steps; W&B keeps it, and is not told it again.
    """

    def __init__(
        self,
        events: Path | None = None,
        board: Path | None = None,
        wandb: WandbRun | None = None,
        *,
        resumed_at: int | None,
    ) -> None:
        super().__init__()
        self._lines: BinaryIO | None = None
        self._board: Any = None
        self._wandb: Any = None
        if events is not None:
            self._lines = self.enter_context(events.open("wb" if resumed_at is None else "ab"))
        if board is not None:
            from torch.utils.tensorboard import SummaryWriter

            purged = None if resumed_at is None else resumed_at + 1
            self._board = self.enter_context(SummaryWriter(str(board), purge_step=purged))
        if wandb is not None:
            self._wandb = self.enter_context(_opened(wandb))

    def write(self, event: Event) -> None:
        """Add an event to each log."""
        if self._lines is not None:
            self._lines.write(dumps(event.to_json()))
            self._lines.flush()
        scalars = event.scalars()
        if self._board is not None:
            for name, value in scalars.items():
                self._board.add_scalar(name, value, event.step)
            if isinstance(event, CheckpointEvent):
                self._board.flush()
        if self._wandb is not None and scalars and event.step >= self._wandb.step:
            self._wandb.log(scalars, step=event.step)


def _opened(run: WandbRun) -> Any:
    """W&B's run, which writes nothing to our streams; RunProblem where W&B refuses it."""
    import wandb

    try:
        return wandb.init(
            project=run.project, name=run.name, id=run.id, config=run.config, resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
    except wandb.errors.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunProblem(f"--wandb: {reason} (WANDB_MODE=offline needs no account)") from error
