"""`ramctl eval`: predictions and truth in, figures out."""

from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand, filled, option

HELP = """
PREDICTIONS is JSONL, or - for stdin. Photos are matched by image as written, else by path,
else by unique base name. AP equals scikit-learn's average_precision_score.
"""
EXAMPLES = """
ramctl tag --dense photos/*.jpg | ramctl eval - --truth truth.jsonl
ramctl eval new.jsonl --baseline old.jsonl --truth truth.jsonl -f table
"""
NOTES = """
Reads:    image; dense with label_names (first line), else scores, else tags (score 1);
          truth: image, tags, uncertain (counts neither way), negatives (the rest unknown);
          both also as FILE.txt or .csv with lines id,tag,tag
Writes:   one JSON object (or -f table, csv, md) with figures, classes, unmatched photos
Memory:   numbers, not photos: about ten bytes per photo and class
Exit:     0 done; 1 failed, or nothing to evaluate; 2 wrong usage; 3 some lines were rejected
"""
OPTIONS = {
    "input": [
        option("--truth FILE", "Records with the true tags.", type=str, required=True, common=True),
        option(
            "--classes FILE",
            "Word list or bundle [default: the truth's tags].",
            type=options.FILE_OR_FOLDER,
            common=True,
        ),
        option(
            "--map FILE",
            "Lines of class<TAB>tag|tag; the best score counts.",
            name="map_file",
            common=True,
        ),
        option("--groups FILE", "Lines of group<TAB>class|class: add the mAP of each group."),
        option(
            "--labels FILE",
            "Label system of the predictions, for its synonyms.",
            type=options.FILE_OR_FOLDER,
        ),
        option(
            "--baseline PREDICTIONS",
            "Compare with these: mAP difference and interval.",
            common=True,
        ),
        option("--key [image|path|name]", "Match photos by this only."),
    ],
    "metrics": [
        option(
            "--threshold X|FILE",
            "Score above which a tag counts [default: the predictions' tags, else 0.5].",
            common=True,
        ),
        option(
            "--metric-style [exact|ram]",
            "ram: as the RAM authors compute it (order breaks ties, absent classes count 0).",
            name="style",
            default="exact",
        ),
        option("--ci", "Add 95 % bootstrap intervals.", common=True),
        option("--resamples N", "Bootstrap resamples.", type=click.IntRange(10), default=1000),
        options.seed,
    ],
    "output": [
        option(
            "-f, --format [json|table|csv|md]",
            "Format of the figures.",
            name="form",
            default="json",
            common=True,
        ),
        option("-o, --output FILE", "Write FILE, not stdout.", common=True),
        option(
            "--report FILE",
            "Write a table of classes (.csv, .md, else TSV).",
            name="report_file",
            common=True,
        ),
        option("--calibrate FILE", "Write the thresholds of the best F1, as JSONL.", common=True),
        options.rejects,
        options.strict,
        options.stats,
    ],
    "run": [options.quiet, options.verbose],
}


def call(**values: Any) -> int:
    from ramctl.evaluation.run import EvalOptions, run

    return run(filled(EvalOptions, values)).exit_code


command = RamctlCommand(
    "eval",
    call,
    click.Argument(["predictions"], metavar="[PREDICTIONS]", default="-", type=click.Path()),
    OPTIONS,
    help=HELP,
    examples=EXAMPLES,
    notes=NOTES,
)
