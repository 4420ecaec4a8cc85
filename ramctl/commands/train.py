"""`ramctl train`: parsed records to a bundle; `finetune` shares its options."""

import click

from ramctl.commands import options
from ramctl.commands.options import Option, option

TARGET = "ramctl.training.train:TrainOptions"
EXTRA = "train"
HELP = """
Labels come from --labels, else from --model, else from the records' tags.
All records are read before the first step.
"""
EXAMPLES = """
ramctl parse captions.jsonl | ramctl train
ramctl train parsed.jsonl --preset mini --val dev.jsonl --epochs 10
"""
NOTES = f"""
Reads image, tags, captions, caption_tags, generated_captions, generated_caption_tags, kinds.
Writes a bundle to OUT; OUT.work holds the unfinished run. Several processes: torchrun ... -m
ramctl train ...; the exit code is then 0 with rejects, as torchrun takes 3 for a failure.
{options.EXIT_CODES}
"""
STARTS = [
    option("--preset NAME|FILE", "Architecture and settings [default: --model's, or mini]."),
    option(
        "--model BUNDLE", "Start from a bundle's weights and labels.", field="init", inherits=False
    ),
]


def training_options(starts: list[Option], out: str) -> dict[str, list[Option]]:
    """The options of a training command that starts from `starts` and writes the bundle `out`."""
    return {
        "input": [
            options.root,
            option("--val FILE", "Validation records [default: hold some out].", type=str),
        ],
        "model": [
            *starts,
            options.labels,
            option("--text DIR", "Text encoder of the labels [default: --model's].", type=str),
        ],
        "training": [
            option("--steps N", "Optimiser steps, instead of epochs."),
            option(
                "--epochs N", "Passes over the records.", type=click.FloatRange(0, min_open=True)
            ),
            option(
                "--set KEY=VALUE",
                "Change a setting, as training.lr=1e-4; repeatable.",
                field="overrides",
                multiple=True,
            ),
            option(
                "--distill TEACHER",
                "caption, imagenet, clip:FOLDER, scores:FILE, none; repeatable.",
                multiple=True,
            ),
            option("--seed N", "Random seed [default: the preset's].", type=int),
        ],
        "output": [
            option("--out DIR", "Bundle to write.", default=out),
            option("--resume", "Continue the unfinished run in OUT.work."),
            options.rejects,
            options.strict,
            options.stats,
            option("--events FILE", "Write a line for each step and validation.", writes=True),
        ],
        "run": [
            options.jobs("the preset's", type=click.IntRange(0)),
            options.device,
            option("--dtype [auto|fp32|bf16|fp16]", "Number format.", default="auto"),
            options.quiet,
        ],
    }


OPTIONS = training_options(STARTS, "model")
