"""`ramctl finetune`: `train` from a bundle, with its preset's settings for fine-tuning."""

from typing import Any

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand
from ramctl.commands.train import NOTES, start, training_options

HELP = """
The model keeps its labels (--labels +FILE adds some); its preset gives the
settings of fine-tuning. All records are read before the first step.
"""
EXAMPLES = """
ramctl finetune --model model good.jsonl --out model-finetuned
ramctl finetune --model model --labels +birds.txt birds.jsonl
"""


def call(model: str, **values: Any) -> int:
    return start("finetune", values | {"init": model})


command = RamctlCommand(
    "finetune",
    call,
    options.inputs,
    training_options([options.model], "model-finetuned"),
    help=HELP,
    examples=EXAMPLES,
    notes=NOTES,
)
