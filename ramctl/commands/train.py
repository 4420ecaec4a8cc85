"""`ramctl train`: parsed records to a bundle; `finetune` starts from one."""

from copy import copy

import click

from ramctl.commands import options
from ramctl.commands.base import Option, common, option

TARGET = "ramctl.training.run:TrainOptions"
EXTRA = "train"
HELP = """
The labels are those of --labels, else of --init, else they are built from the records' tags.
All records are read before the first step.
"""
EXAMPLES = """
ramctl parse captions.jsonl | ramctl train
ramctl train parsed.jsonl --preset mini --val dev.jsonl --epochs 10
"""
NOTES = """
Reads image, tags, captions, caption_tags, generated_captions, generated_caption_tags, kinds.
FILE and --root may be URLs (s3://...: extra [remote]); photos then lie below that of --root, else
beside FILE, and archives of them are copied once into the user's cache ($RAMCTL_SHARD_CACHE: 64G).
Writes a bundle to OUT; OUT.work holds the unfinished run (checkpoints, features, records).
Several processes: torchrun ... -m ramctl train ...; torchrun takes 3 for a failure, so it gets 0.
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some records were rejected; 4 stopped by
--max-time; 130 interrupted, 143 terminated (in these three cases --resume continues).
"""
STARTS = [
    common(
        "--preset NAME|FILE",
        "Architecture and training settings [default: those of --init, or mini].",
    ),
    common("--init BUNDLE", "Start from a bundle's weights and labels."),
]
OUTPUT = [
    common("--resume", "Continue the unfinished run in OUT.work."),
    common("--restart", "Discard the unfinished run in OUT.work."),
    option(
        "--save-every STEPS",
        "Steps between checkpoints [default: one every 5 minutes].",
        type=click.IntRange(1),
    ),
    options.max_time,
    options.rejects,
    options.strict,
    options.stats,
    option("--events FILE", "Write steps, validations and checkpoints as JSONL.", writes=True),
]
RUN = [
    common("--dry-run", "Build the model, time a few steps, write nothing."),
    option("--cache DIR", "Keep the features of frozen encoders in DIR.", type=str),
    options.jobs("the preset's", common=False, type=click.IntRange(0)),
    options.threads,
    options.device,
    option("--dtype [auto|fp32|bf16|fp16]", "Number format of the forward pass.", default="auto"),
    *options.messages,
]


def training_options(starts: list[Option], out: str) -> dict[str, list[Option]]:
    """The options of a training command: what it starts from, and where its bundle goes."""
    return {
        "input": [
            options.root,
            common("--val FILE", "Validation records [default: hold some out].", type=str),
        ],
        "model": [
            *starts,
            options.labels,
            option(
                "--text DIR",
                "Text table for labels [default: that of --init, of CLIP as teacher, or embedded].",
                type=str,
            ),
        ],
        "training": [
            option("--steps N", "Optimiser steps, instead of epochs."),
            common(
                "--epochs N", "Passes over the records.", type=click.FloatRange(0, min_open=True)
            ),
            common(
                "--set KEY=VALUE",
                "Override a setting, as in training.lr=1e-4; repeatable.",
                field="overrides",
                multiple=True,
            ),
            option(
                "--distill TEACHER",
                "Teacher: caption, imagenet, clip:FOLDER, scores:FILE or none; repeatable.",
                multiple=True,
            ),
            option("--seed N", "Random seed [default: the preset's].", type=int),
        ],
        "output": [common("--out DIR", "Bundle to write.", default=out), *OUTPUT],
        "run": RUN,
    }


OPTIONS = training_options(STARTS, "model")


class Finetune:
    """`ramctl finetune`: with the settings for fine-tuning of a bundle's preset."""

    TARGET, EXTRA, NOTES = TARGET, EXTRA, NOTES
    HELP = """
The model keeps its labels (--labels +FILE adds some) and, without --val, its
thresholds; its preset gives the settings of fine-tuning. All records are read first.
--thresholds needs a few dozen tags that a person kept or took out (export --decisions).
"""
    EXAMPLES = """
ramctl finetune --model model good.jsonl --out model-finetuned
ramctl finetune --model model --labels +birds.txt birds.jsonl
ramctl finetune --thresholds judged.jsonl --out mine
"""
    start = copy(options.model)
    start.field = "init"
    OPTIONS = training_options([start], "model-finetuned")
    OPTIONS["training"].append(
        common("--thresholds", "Learn thresholds alone, from confirmed and refused tags.")
    )
