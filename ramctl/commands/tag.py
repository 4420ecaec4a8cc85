"""Inputs are photos, folders (-R), *.tar, and *.jsonl[.gz] or *.parquet with image. On -
(stdin), a line that starts with { is a record, any other line a path.

Writes tags (main subject first), scores, salience; dense, embedding, boxes, generated_captions.

Examples:
  ramctl tag photo.jpg
  ramctl tag -R ~/Pictures -o tags.jsonl --resume
  find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
"""

from click import Choice

from ramctl.commands import options
from ramctl.commands.options import option
from ramctl.records.output_formats import FORMATS

DTYPES = ("auto", "fp32", "bf16", "fp16", "int8")
# Threads of numpy's that wait for work would double the core-time: `tag` has one of its own a core.
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
TARGET = "ramctl.inference.tag_photos:TagOptions"
OPTIONS = {
    "Input": [
        *options.photos,
        option("-0, --null", "Names on stdin end with NUL."),
        options.shard,
    ],
    "Model": [
        options.model,
        options.labels,
        option("--thorough", "Score parts of each photo too: 3 to 5 times slower."),
    ],
    "Selection": [
        option("--threshold NUMBER|FILE", "Give tags above this score [default: the model's]."),
        option("--precision P", "Target precision of the tags, 0 to 1."),
        option("--top N", "At most N tags a photo."),
        option("--lang CODE", "Language of the tags and of lists, such as de."),
    ],
    "Output": [
        option(
            "-f, --format FORMAT", f"{', '.join(FORMATS)} [terminal: table].", type=Choice(FORMATS)
        ),
        option("--dense", "Add the scores of all labels."),
        option("--embedding", "Add a vector for ramctl search."),
        option("--boxes", "Add the region of each thing."),
        option("--caption", "Add a caption, if the model is confident."),
        *options.stream,
    ],
    "Run": [
        options.jobs,
        options.devices,
        option("--dtype TYPE", f"{', '.join(DTYPES)}.", type=Choice(DTYPES), default="auto"),
        options.ray,
        options.quiet,
    ],
}
