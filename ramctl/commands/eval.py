"""`ramctl eval`: predictions and truth in, figures out."""

from pathlib import Path
from typing import Any

import click

from ramctl.commands.base import RamctlCommand, option
from ramctl.commands.options import quiet, seed, stats, verbose

PATH = click.Path(dir_okay=False, path_type=Path)

HELP = """Compare predictions with the truth: mAP, precision, recall.

  ramctl tag --dense photos/*.jpg | ramctl eval - --truth truth.jsonl
  ramctl eval new.jsonl --baseline old.jsonl --truth truth.jsonl --map coco80.tsv -f table

PREDICTIONS is JSONL, or - for stdin. Photos meet by image as written, else by path,
else by unique base name. AP equals scikit-learn's average_precision_score.
"""

EPILOG = """
Reads:    image; dense with label_names (first line), else scores, else tags (score 1);
          truth: image, tags, uncertain (counts neither way), negatives (the rest unknown);
          both also as FILE.txt or .csv with lines id,tag,tag
Writes:   one JSON object (or -f table, csv, md) with figures, classes, unmatched photos
Exit:     0 done, 1 failed or nothing to evaluate, 2 usage, 3 some lines rejected
Buffers:  numbers, not photos: about ten bytes a photo and class
"""


@click.command("eval", cls=RamctlCommand, help=HELP, epilog=EPILOG)
@click.argument("predictions", metavar="[PREDICTIONS]", default="-", type=click.Path())
@option("--truth", required=True, metavar="FILE", group="input", help="What is true of each photo.")
@option(
    "--classes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="input",
    help="Classes: a word list, labels.jsonl or bundle [default: all tags of the truth].",
)
@option(
    "--map",
    "map_file",
    type=PATH,
    metavar="FILE",
    group="input",
    help="Lines class<TAB>tag|tag: a class scores the maximum of its tags.",
)
@option(
    "--groups",
    type=PATH,
    metavar="FILE",
    group="input",
    help="Lines group<TAB>class|class: mAP of each group too.",
)
@option(
    "--labels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="input",
    help="Label system of the predictions, for its synonyms.",
)
@option(
    "--baseline",
    metavar="PRED",
    group="input",
    help="Other predictions: the mAP difference with its paired interval.",
)
@option(
    "--key",
    type=click.Choice(["image", "path", "name"]),
    group="input",
    help="Match photos by this only.",
)
@option(
    "-f",
    "--format",
    "form",
    type=click.Choice(["json", "table", "csv", "md"]),
    default="json",
    show_default=True,
    group="output",
    help="Format of the figures.",
)
@option("-o", "--output", type=PATH, metavar="FILE", group="output", help="Write FILE, not stdout.")
@option(
    "--report",
    "report_file",
    type=PATH,
    metavar="FILE",
    group="output",
    help="Write a table of all classes (.csv, .md, else TSV).",
)
@option(
    "--calibrate",
    type=PATH,
    metavar="FILE",
    group="output",
    help="Write thresholds of the best F1 as JSONL.",
)
@option("--rejects", metavar="FILE", group="output", help="Write unusable lines; - for stderr.")
@option("--strict", is_flag=True, group="output", help="Fail at the first reject.")
@option(
    "--threshold",
    metavar="X|FILE",
    help="What counts as given [default: the predictions' tags, else 0.5].",
)
@option(
    "--metric-style",
    "style",
    type=click.Choice(["exact", "ram"]),
    default="exact",
    show_default=True,
    help="ram: the RAM authors' (tie order; absent classes are 0).",
)
@option("--ci", is_flag=True, help="95 % intervals by bootstrap over photos.")
@option(
    "--resamples",
    type=click.IntRange(10),
    default=1000,
    show_default=True,
    metavar="N",
    help="Resamples of the bootstrap.",
)
@seed
@stats
@quiet
@verbose
def command(**options: Any) -> int:
    from ramctl.evaluation.run import EvalOptions, run
    from ramctl.records.inputs import named_or_stdin

    given = {name: options[name] for name in options if name not in ("verbose", "predictions")}
    predictions = options["predictions"]
    if predictions == "-":
        (predictions,) = named_or_stdin((), "a file of predictions")
    return run(EvalOptions(predictions=predictions, **given))
