"""`--tensorboard DIR`: a run's events as TensorBoard event files."""

from importlib.util import find_spec
from pathlib import Path

from ramctl.errors import RunProblem
from ramctl.training.events import Event, StepEvent, ValidationEvent


def require_tensorboard() -> None:
    """Raise RunProblem, in one line, where the extra is not installed."""
    if find_spec("tensorboard") is None:
        raise RunProblem("--tensorboard needs the extra: pip install 'ramctl[tensorboard]'")


class TensorBoardLog:
    """Writes scalars a step: losses, learning rate, gradient norm, speed, mAP.

    `resumed_at` is the step after which a run goes on: what an interrupted run told of later
    steps is hidden.
    """

    def __init__(self, folder: Path, *, resumed_at: int | None = None) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        purged = None if resumed_at is None else resumed_at + 1
        self._writer = SummaryWriter(str(folder), purge_step=purged)

    def write(self, event: Event) -> None:
        """Add what the event tells."""
        if isinstance(event, StepEvent):
            scalars = {
                "loss/total": event.total,
                **{f"loss/{name}": value for name, value in event.losses.items()},
                "training/learning_rate": event.lr,
                "training/gradient_norm": event.grad_norm,
                "training/epoch": event.epoch,
                "speed/images_per_second": event.rate_img_s,
                "speed/data_wait_share": event.wait_share,
            }
        elif isinstance(event, ValidationEvent):
            scalars = {"validation/mAP": event.map}
        else:
            self._writer.flush()
            return
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, event.step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
