"""Goes on with the training of a bundle, at its preset's settings for that. It keeps the labels
and, without --val, what scores are worth. Reads and writes what train does.

Examples:
  ramctl finetune --model model good.jsonl --out tuned
  ramctl finetune --model model --labels +birds.txt birds.jsonl --epochs 2
"""

from ramctl.commands import options
from ramctl.commands.options import option
from ramctl.commands.train import TARGET, training_options

__all__ = ["TARGET"]

start = option("--model BUNDLE", "The bundle to start from.", "init", default="mini")
OPTIONS = training_options([start, options.labels], "model-finetuned")
