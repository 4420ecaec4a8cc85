"""Labels come from --labels, else from --model, else from the records' tags.
All records are read before the first step.

Reads image, tags, captions, caption_tags, generated_captions, generated_caption_tags, kinds.
Writes a bundle to OUT; OUT.work holds the unfinished run. Several processes: torchrun ... -m
ramctl train ...; the exit code is then 0 with rejects, as torchrun takes 3 for a failure.

Examples:
  ramctl parse captions.jsonl | ramctl train
  ramctl train parsed.jsonl --preset mini --val dev.jsonl --epochs 10
"""

from collections.abc import Sequence

import click

from ramctl.commands import options
from ramctl.commands.options import NAME, OUTPUT, option

Options = Sequence[click.Option]
TARGET = "ramctl.training.train:TrainOptions"


def training_options(
    start: list[click.Option], out: str, more: Options = ()
) -> dict[str, list[click.Parameter]]:
    """The options of a training command that starts from `start` and writes the bundle `out`."""
    return {
        "Input": [
            options.inputs,
            options.root,
            option("--val FILE", "Validation records [default: hold some out].", type=NAME),
        ],
        "Model": [*start],
        "Training": [
            option(
                "--epochs N",
                "Passes over the records.",
                type=click.FloatRange(0, min_open=True),
            ),
            option(
                "--set KEY=VALUE",
                "Change a setting, as training.lr=1e-4; repeatable.",
                "overrides",
                multiple=True,
            ),
            *more,
        ],
        "Output": [
            option("--out DIR", "Bundle to write.", default=out),
            option("--resume", "Continue the unfinished run in OUT.work."),
            options.rejects,
            option("--events FILE", "Write a line for each step and validation.", type=OUTPUT),
        ],
        "Run": [options.device, options.quiet],
    }


START = [
    option("--preset NAME|FILE", "Architecture and settings [default: --model's, or mini]."),
    option(
        "--model BUNDLE",
        "Start from a bundle's weights and labels.",
        "init",
        envvar="RAMCTL_TRAIN_MODEL",
    ),
    options.labels,
    option("--text DIR", "Text encoder of the labels [default: --model's].", type=NAME),
]
MORE = [
    option(
        "--distill TEACHER",
        "caption, imagenet, clip:FOLDER, scores:FILE, none; repeatable.",
        multiple=True,
    ),
]
OPTIONS = training_options(START, "model", MORE)
