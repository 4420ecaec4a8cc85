"""The options that several commands share, declared once."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ramctl.commands.base import option
from ramctl.records.stream import StreamOptions

Decorator = Callable[[Any], Any]
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with s, m, h or d."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The duration in seconds."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        if not match:
            self.fail(f"{value!r} is not a duration such as 90, 15m or 2h", param, ctx)
        return float(match[1]) * _UNIT_S[match[2]]


def combined(*decorators: Decorator) -> Decorator:
    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


inputs = click.argument("inputs", nargs=-1, metavar="[FILE]...", type=click.Path())

root = option(
    "--root", metavar="DIR", type=click.Path(file_okay=False), group="input",
    help="Folder that relative photo names refer to.",
)  # fmt: skip

quiet = option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but failures.")
verbose = option("-v", "--verbose", count=True, help="Say more; -vv shows tracebacks.")
seed = option("--seed", type=int, default=0, show_default=True, help="Seed of all that is random.")
jobs = option(
    "-j", "--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N",
    help="Worker processes; the result does not depend on it.",
)  # fmt: skip
batch = option(
    "-b",
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Records a batch [default: fits the model].",
)
threads = option(
    "--threads", type=click.IntRange(1), metavar="N", help="Threads of the model [default: cores]."
)
device = option(
    "--device", default="auto", show_default=True, metavar="DEVICE",
    help="auto, cpu, mps or cuda[:N].",
)  # fmt: skip
dtype = option(
    "--dtype", type=click.Choice(["auto", "fp32", "bf16", "int8"]), default="auto",
    show_default=True, help="Number format of the model's run.",
)  # fmt: skip
engine_run = combined(jobs, batch, threads, device, dtype, seed)
progress = option(
    "--progress/--no-progress", default=None, help="Progress bar [default: on a terminal only]."
)
stats = option(
    "--stats", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", group="output",
    help="Write counts, seconds and versions as JSON.",
)  # fmt: skip
model = option(
    "--model", default="mini", show_default=True, metavar="BUNDLE", group="model",
    help="A folder, or a name under $RAMCTL_MODELS.",
)  # fmt: skip

stream = combined(
    option(
        "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
        group="output", help="Write FILE when complete, by way of FILE.part [default: stdout].",
    ),
    option("--resume", is_flag=True, group="output", help="Continue an earlier -o FILE."),
    option(
        "--retry-rejects", is_flag=True, group="output",
        help="With --resume, try rejected inputs again (last).",
    ),
    option(
        "--rejects", metavar="FILE", group="output",
        help="Write what cannot be done as JSONL; - for stderr.",
    ),
    option("--strict", is_flag=True, group="output", help="Fail at the first reject."),
    option(
        "--max-time", type=Duration(), metavar="TIME", group="output",
        help="Stop cleanly after 90 (s), 15m, 2h; continue with --resume.",
    ),
    stats,
    progress,
    quiet,
    verbose,
)  # fmt: skip


def baseline_options(options: dict[str, Any]) -> Any:
    """How the data engine runs its baseline, from the options of `engine_run`."""
    from ramctl.data_engine.baseline import BaselineOptions

    return BaselineOptions(
        device=options["device"],
        dtype=options["dtype"],
        threads=options["threads"],
        batch=options["batch"],
        workers=options["jobs"],
    )


def stream_options(options: dict[str, Any], *, batch: int) -> StreamOptions:
    """The stream options among a command's parameters; `batch` where none was asked for."""
    return StreamOptions(
        output=options["output"],
        resume=options["resume"],
        retry_rejects=options["retry_rejects"],
        rejects=options["rejects"],
        strict=options["strict"],
        stats=options["stats"],
        max_time=options["max_time"],
        progress=False if options["quiet"] else options["progress"],
        batch=options.get("batch") or batch,
    )
