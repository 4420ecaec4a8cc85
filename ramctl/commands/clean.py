"""--rule model removes tags that are probably wrong, by the model's score of the photo and by the
other records. --rule paper removes outliers, and tags that the model does not predict on their
own regions: far more, and mostly right ones. A person's tags are never removed.

Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
All records are read (onto disk) before the first is written; a stopped run starts again. Memory:
a few numbers a tag, and from 10,000 records on 5 x features x (features + labels).

Examples:
  ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
  ramctl clean more.jsonl -o clean.jsonl --rule paper
"""

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.data_engine.cleaning:CleanOptions"
OPTIONS = {
    "Input": [options.inputs, options.root],
    "Model": [
        options.model,
        option("--detector NAME", "attention or grounding-dino:WEIGHTS.", default="attention"),
    ],
    "Cleaning": [
        option("--rule [model|paper]", "Which tags are wrong.", default="model"),
        option("--kinds KIND,...", "Kinds of tags to clean [default: all; paper: object,scene]."),
        option("--outliers FRACTION", "Paper: remove these of a tag's regions [default: 0.1]."),
        option(
            "--threshold NUMBER|FILE",
            "Paper: remove tags whose regions score no more [default: the model's].",
        ),
    ],
    "Output": [options.output, options.rejects],
    "Run": [options.device, options.quiet],
}
