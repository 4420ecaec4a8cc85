"""`ramctl finetune`: further training of a bundle on a small, clean set."""

from copy import copy

from ramctl.commands import options
from ramctl.commands.options import common
from ramctl.commands.train import EXTRA, NOTES, TARGET, training_options

__all__ = ["EXTRA", "NOTES", "TARGET"]

HELP = """
Fits the model's labels to up to 5,000 captioned photos, in minutes. Things that captions name five
times become labels (--labels closes the list). It reports what that brings on held-out photos.
With --epochs, --steps, --set, --distill or --val the model itself is trained, as by train, by the
settings of its preset; it keeps its labels and, without --val, its thresholds.
--thresholds needs a few dozen tags that a person kept or removed (export --decisions).
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
    common("--thresholds", "Learn only thresholds, from confirmed and refused tags.")
)
