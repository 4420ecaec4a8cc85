"""`ramctl train`: parsed records to a bundle."""

from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand
from ramctl.commands.training_options import (
    TRAINING_EPILOG,
    init,
    labels,
    out,
    preset,
    start_training,
    training,
)


@click.command("train", cls=RamctlCommand, epilog=TRAINING_EPILOG)
@options.inputs
@out("model")
@preset
@init
@labels
@training
def command(**values: Any) -> int:
    """Train a tagging model on parsed records.

    ramctl parse captions.jsonl | ramctl train
    ramctl train parsed.jsonl --out model --preset mini --val dev.jsonl --epochs 10
    """
    return start_training("train", values)
