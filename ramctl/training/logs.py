"""Where a run's events go: a line for people, a JSONL file, TensorBoard."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from ramctl.records.jsonl import dumps
from ramctl.training.events import Event, StepEvent
from ramctl.training.tensorboard import TensorBoardLog


class EventLogs:
    """The files that were asked for."""

    def __init__(self, lines: BinaryIO | None, board: TensorBoardLog | None) -> None:
        self._lines = lines
        self._board = board

    def write(self, event: Event) -> None:
        """Add an event to each."""
        if self._lines is not None:
            self._lines.write(dumps(event.to_json()))
            self._lines.flush()
        if self._board is not None:
            self._board.write(event)


@contextmanager
def open_logs(
    events: Path | None, board: Path | None, *, resumed_at: int | None
) -> Iterator[EventLogs]:
    """Logs that go on after the step `resumed_at`, or begin anew (None)."""
    with ExitStack() as stack:
        lines, scalars = None, None
        if events is not None:
            lines = stack.enter_context(events.open("wb" if resumed_at is None else "ab"))
        if board is not None:
            scalars = TensorBoardLog(board, resumed_at=resumed_at)
            stack.callback(scalars.close)
        yield EventLogs(lines, scalars)


def describe_step(event: StepEvent, total_steps: int) -> str:
    """A step in one line: losses, learning rate, speed, share of time spent waiting for data."""
    losses = ", ".join(f"{name} {value:.4g}" for name, value in event.losses.items())
    skipped = ", skipped (gradient not finite)" if event.is_skipped else ""
    return (
        f"step {event.step}/{total_steps}, epoch {event.epoch}: loss {event.total:.4g} ({losses}), "
        f"lr {event.lr:.3g}, {event.rate_img_s:.1f} images/s, "
        f"{event.wait_share:.0%} waiting for data{skipped}"
    )
