"""`ramctl finetune`: train further from a bundle, on a small good set."""

from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand
from ramctl.commands.training_options import (
    TRAINING_EPILOG,
    labels,
    out,
    start_training,
    training,
)


@click.command("finetune", cls=RamctlCommand, epilog=TRAINING_EPILOG)
@options.inputs
@out("model-finetuned")
@options.model
@labels
@training
def command(**values: Any) -> int:
    """Train a model further on a small good set.

    ramctl finetune --model model good.jsonl --out model-finetuned
    ramctl finetune --model model --labels +birds.txt birds.jsonl
    """
    values["init"] = values.pop("model")
    return start_training("finetune", values)
