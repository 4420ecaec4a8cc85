"""What `train` and `finetune` share on the command line."""

import sys
from pathlib import Path
from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import option
from ramctl.commands.options import Decorator, Duration

TRAINING_EPILOG = """\
Reads image, tags, captions, caption_tags, generated_captions, generated_caption_tags, kinds.
Writes a bundle to OUT; OUT.work holds the unfinished run (checkpoints, features, records).
Reads all records before the first step. In several processes: torchrun ... -m ramctl train ...
Exit codes: 0 done, or stopped by --max-time; 1 failed; 2 wrong usage; 3 done, some records
rejected; 130 interrupted, 143 terminated (the state is saved: --resume goes on)."""

preset = option(
    "--preset", metavar="NAME|FILE", group="model",
    help="Model and training [default: --init's, else mini].",
)  # fmt: skip
init = option(
    "--init", metavar="BUNDLE", group="model", help="Start from a bundle's weights and labels."
)
labels = option(
    "--labels", metavar="[+]FILE", group="model",
    help="Label file, bundle, word list; +FILE appends to the bundle's.",
)  # fmt: skip


def out(default: str) -> Decorator:
    """The bundle to write."""
    return option(
        "--out", type=click.Path(file_okay=False, path_type=Path), default=default,
        show_default=True, metavar="DIR", group="output", help="Bundle to write.",
    )  # fmt: skip


_TRAINING = (
    options.root,
    option(
        "--val", metavar="FILE", group="input",
        help="Records to validate on [default: 2 % of the photos].",
    ),
    option("--set", "overrides", multiple=True, metavar="KEY=VALUE", group="model",
           help="Override a number, e.g. training.lr=1e-4."),
    option("--distill", multiple=True, metavar="TEACHER", group="model",
           help="caption, imagenet, clip:FOLDER, none; repeatable."),
    option("--text", metavar="DIR|clip:DIR", group="model",
           help="Text embedding of words [default: --init's, else embedded]."),
    option("--steps", type=click.IntRange(1), metavar="N", group="model",
           help="Optimiser steps instead of epochs."),
    option("--epochs", type=click.FloatRange(0, min_open=True), metavar="N", group="model",
           help="Passes over the records."),
    option("--seed", type=int, metavar="N", group="model",
           help="Seed of all that is random [default: the preset's]."),
    option("--resume", is_flag=True, group="output", help="Continue the run in OUT.work."),
    option("--restart", is_flag=True, group="output", help="Forget the run in OUT.work."),
    option("--save-every", type=click.IntRange(1), metavar="STEPS", group="output",
           help="Save this often [default: every 5 minutes]."),
    option("--max-time", type=Duration(), metavar="TIME", group="output",
           help="Stop cleanly after 90 (s), 15m, 2h; then --resume."),
    option("--rejects", metavar="FILE", group="output",
           help="Write unusable records as JSONL; - for stderr."),
    option("--strict", is_flag=True, group="output", help="Fail at the first reject."),
    options.stats,
    option("--events", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
           group="output", help="Write steps, validations, checkpoints as JSONL."),
    option("--tensorboard", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
           group="output", help="Write the same as TensorBoard event files (extra)."),
    option("--compile", is_flag=True, help="torch.compile the model, where a compiler is."),
    option("--dry-run", is_flag=True, help="Build the model, time a step, write nothing."),
    option("--cache", metavar="DIR", help="Where features of frozen encoders stay."),
    option("-j", "--jobs", type=click.IntRange(0), metavar="N",
           help="Processes that read photos."),
    options.threads,
    options.device,
    option("--dtype", type=click.Choice(["auto", "fp32", "bf16"]), default="auto",
           show_default=True, help="Number format of the forward pass."),
    options.progress,
    options.quiet,
    options.verbose,
)  # fmt: skip


def training(function: Any) -> Any:
    """The options of a training run."""
    for decorator in reversed(_TRAINING):
        function = decorator(function)
    return function


def start_training(command: str, values: dict[str, Any]) -> int:
    """Run a training command; its exit code."""
    from ramctl.records.jsonl import dumps
    from ramctl.records.report import Report
    from ramctl.training.plan import TrainOptions
    from ramctl.training.run import run_training

    report = Report(command, quiet=values["quiet"], unit="photos")
    chosen: dict[str, Any] = {
        name: values.get(name) for name in TrainOptions.__slots__ if name in values
    }
    chosen |= {
        "command": command,
        "argv": tuple(sys.argv[1:]),
        "inputs": tuple(values["inputs"]),
        "workers": values["jobs"],
    }
    run_options = TrainOptions(**chosen)
    if run_options.dry_run:
        from ramctl.training.dry_run import dry_run

        click.echo(dumps(dry_run(run_options, report)), nl=False)
        return report.exit_code
    run_training(run_options, report)
    report.write_stats(values["stats"])
    return report.exit_code
