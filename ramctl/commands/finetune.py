"""`ramctl finetune`: further training of a bundle on a small, clean set."""

from copy import copy

from ramctl.commands import options
from ramctl.commands.options import option
from ramctl.commands.train import EXTRA, NOTES, TARGET, training_options

__all__ = ["EXTRA", "NOTES", "TARGET"]

HELP = """
Fits the labels to up to 5,000 captioned photos, in minutes. Things that five captions name become
labels (--labels closes the list). With --epochs, --steps, --set or --distill the model is
trained, with its preset's settings; it keeps labels and, without --val, thresholds.
"""
EXAMPLES = """
ramctl parse captions.jsonl | ramctl finetune --model mini --out mine
ramctl finetune --model model --labels +birds.txt birds.jsonl --epochs 2
ramctl finetune --thresholds judged.jsonl --out mine
"""
model = copy(options.model)
model.field = "init"
OPTIONS = training_options([model], "model-finetuned")
OPTIONS["training"].append(
    option("--thresholds", "Learn only thresholds, from confirmed and refused tags.")
)
