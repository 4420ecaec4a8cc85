"""PREDICTIONS is JSONL, Parquet or a table, - for stdin; several files are compared. Photos match
by image, else by unique base name. mAP is higher on fewer photos: compare on the same photos.

Predictions: image, and dense with label_names (first line), else scores, else tags (score 1).
Without --threshold, the records' tags count as predicted if all records have them.
Truth: image, tags, uncertain (ignored), negatives (if present, other tags are unknown).
CSV and TSV: image,tags[,scores], image,label[,score], or a column for each label; without a
header, id,tag,tag. Writes figures, classes, unmatched photos.
Memory: about six bytes a photo and class.

Examples:
  ramctl tag --dense photos/*.jpg | ramctl eval - --truth truth.jsonl
  ramctl eval new.jsonl old.jsonl --truth truth.jsonl -f table
"""

import click

from ramctl.commands import options
from ramctl.commands.options import NAME, OUTPUT, option

TARGET = "ramctl.evaluation.evaluate:EvalOptions"
OPTIONS = {
    "Input": [
        click.Argument(["predictions"], metavar="[PREDICTIONS]...", nargs=-1, type=NAME),
        option("--truth FILE", "Records with the true tags.", type=NAME, required=True),
        option(
            "--classes FILE",
            "Word list or bundle [default: the truth's tags].",
            type=options.FILE_OR_FOLDER,
        ),
        option("--map FILE", "Lines of class<TAB>tag|tag; the best score counts.", "map_file"),
    ],
    "Metrics": [
        option("--threshold NUMBER|FILE", "Count tags above this score [default: 0.5]."),
        option("--ci", "Add the 95 % bootstrap interval of mAP."),
    ],
    "Output": [
        option("-f, --format [json|table]", "Format of the figures.", default="json"),
        options.output,
        option("--report FILE", "Write a CSV row for each class.", "report_file", type=OUTPUT),
        option("--plot FILE", "Draw curves and classes (.png, .svg, .pdf).", type=OUTPUT),
        options.rejects,
    ],
    "Run": [options.quiet],
}
