"""`ramctl finetune`: further training of a bundle on a small, clean set."""

from copy import copy

from ramctl.commands import options
from ramctl.commands.train import EXTRA, NOTES, TARGET, training_options

__all__ = ["EXTRA", "NOTES", "TARGET"]

HELP = """
Goes on with the training of a bundle, at its preset's settings for that. It keeps the labels
and, without --val, what scores are worth.
"""
EXAMPLES = """
ramctl finetune --model model good.jsonl --out tuned
ramctl finetune --model model --labels +birds.txt birds.jsonl --epochs 2
"""
model = copy(options.model)
model.field = "init"
OPTIONS = training_options([model], "model-finetuned")
