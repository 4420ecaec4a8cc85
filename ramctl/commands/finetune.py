"""`ramctl finetune`: `train` from a bundle, with its preset's settings for fine-tuning."""

from copy import copy

from ramctl.commands import options, train

TARGET, EXTRA, NOTES = train.TARGET, train.EXTRA, train.NOTES
HELP = """
The model keeps its labels (--labels +FILE adds some); its preset gives the
settings of fine-tuning. All records are read before the first step.
"""
EXAMPLES = """
ramctl finetune --model model good.jsonl --out model-finetuned
ramctl finetune --model model --labels +birds.txt birds.jsonl
"""
START = copy(options.model)
START.field = "init"
OPTIONS = train.training_options([START], "model-finetuned")
