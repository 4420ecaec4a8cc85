"""`ramctl eval`: predictions and truth in, figures out."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.readers.detect import PREDICTION_FORMS

TARGET = "ramctl.evaluation.run:EvalOptions"
HELP = """
PREDICTIONS is JSONL or Parquet, - for stdin; several files are compared with each other. Photos are
matched by image as written, else by path, else by unique base name. AP equals scikit-learn's
average_precision_score; of few photos it is higher than of many: compare at equal photos only.
"""
EXAMPLES = """
ramctl tag --dense photos/*.jpg | ramctl eval - --truth truth.jsonl
ramctl eval new.jsonl old.jsonl --truth truth.jsonl -f table
"""
NOTES = """
Reads:    image; dense with label_names (first line), else scores, else tags (score 1);
          truth: image, tags, uncertain (counts neither way), negatives (the rest unknown);
          both also as FILE.txt or .csv with lines id,tag,tag;
          all also as FILE.gz
Writes:   one JSON object (or -f table, csv, md, latex) with figures, classes, unmatched photos
Memory:   numbers, not photos: about six bytes per photo and class
Exit:     0 done; 1 failed, or nothing to evaluate; 2 wrong usage; 3 some lines were rejected
"""
ARGUMENTS = [
    click.Argument(["predictions"], metavar="[PREDICTIONS]...", nargs=-1, type=click.Path())
]
OPTIONS = {
    "input": [
        common("--truth FILE", "Records with the true tags.", type=str),
        common(
            "--classes FILE",
            "Word list or bundle [default: the truth's tags].",
            type=options.FILE_OR_FOLDER,
        ),
        common(
            "--map FILE", "Lines of class<TAB>tag|tag; the best score counts.", field="map_file"
        ),
        option("--groups FILE", "Lines of group<TAB>class|class: add the mAP of each group."),
        option(
            "--labels FILE",
            "Label file, bundle or word list of the predictions, for its synonyms.",
            type=options.FILE_OR_FOLDER,
        ),
        option(
            "--name NAME=FILE",
            "Call these predictions NAME in tables and pages; repeatable.",
            field="names",
            multiple=True,
        ),
        options.source_format(PREDICTION_FORMS),
    ],
    "metrics": [
        common(
            "--threshold X|FILE",
            "Score above which a tag counts [default: the predictions' tags, else 0.5].",
        ),
        option(
            "--metric-style [exact|ram]",
            "ram: as the RAM authors compute it (order breaks ties, absent classes count 0).",
            field="style",
            default="exact",
        ),
        common("--ci", "Add 95 % bootstrap intervals of all figures."),
        options.seed,
    ],
    "output": [
        common("-f, --format [json|table|csv|md|latex]", "Format of the figures.", default="json"),
        common("-o, --output FILE", "Write FILE, not stdout.", writes=True),
        common(
            "--report FILE",
            "Write a page with charts (.html), or a table of classes (.csv, .md, else TSV).",
            field="report_file",
            writes=True,
        ),
        option(
            "--root DIR", "Folder of the photos that the page shows [default: that of the truth]."
        ),
        common("--calibrate FILE", "Write the thresholds that maximise F1, as JSONL.", writes=True),
        option(
            "--precision P",
            "Target precision of --calibrate, 0 to 1, of all tags together; an error where no "
            "threshold has it for 30 tags or more [default: the best F1].",
        ),
        options.rejects,
        options.strict,
        options.stats,
    ],
    "run": [options.quiet, options.verbose],
}
