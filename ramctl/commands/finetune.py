"""`ramctl finetune`: further training of a bundle on a small, clean set."""

from copy import copy

from ramctl.commands import options
from ramctl.commands.options import common
from ramctl.commands.train import EXTRA, NOTES, TARGET, training_options

__all__ = ["EXTRA", "NOTES", "TARGET"]

HELP = """
The model keeps its labels (--labels +FILE adds some) and, without --val, its thresholds.
The settings of fine-tuning come from its preset. All records are read first.
--thresholds needs a few dozen tags that a person kept or removed (export --decisions).
"""
EXAMPLES = """
ramctl finetune --model model good.jsonl --out model-finetuned
ramctl finetune --model model --labels +birds.txt birds.jsonl
ramctl finetune --thresholds judged.jsonl --out mine
"""
model = copy(options.model)
model.field = "init"
OPTIONS = training_options([model], "model-finetuned")
OPTIONS["training"].append(
    common("--thresholds", "Learn only thresholds, from confirmed and refused tags.")
)
