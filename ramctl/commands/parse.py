"""`ramctl parse`: captions to tags, and captions to a label system."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.readers.detect import FORMATS

TARGET = "ramctl.parsing.run:ParseOptions"
EXTRA = "parse"
HELP = """
Without --labels any visible thing, place, property or action can be a tag; with it, only
the labels of that system. Input formats are recognised; --from forces one.
"""
EXAMPLES = """
ramctl parse captions.jsonl > tagged.jsonl
ramctl parse --build-labels labels.jsonl --review labels.tsv captions.jsonl
ramctl parse --labels labels.jsonl --from coco captions_val2017.json
"""
NOTES = f"""
Reads captions (or caption); writes tags, caption_tags, kinds, sources; with --explain, explain.
Streams; --build-labels holds four bytes per mention, --group spools text to temporary files.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        options.root,
        options.shard,
        common(
            "--from FORMAT",
            f"{', '.join(FORMATS)} [default: recognised].",
            field="source_format",
            type=click.Choice(FORMATS),
        ),
        common("--group", "Join the captions of each image."),
    ],
    "labels": [
        common(
            "--labels FILE",
            "Restrict tags to a label file, bundle or word list.",
            type=options.FILE_OR_FOLDER,
        ),
        common(
            "--build-labels FILE",
            "Write a label system built from all captions, and no records.",
            writes=True,
        ),
        common("--review FILE", "With --build-labels: a table of decisions; your edits are kept."),
    ],
    "output": [
        option(
            "--to [jsonl|ram]",
            "ram: training JSON of the RAM authors; needs --labels.",
            field="target_format",
            default="jsonl",
        ),
        option("--keep-tags", "Keep tags that come with the captions, as human ones."),
        common("--explain", "Add the words and the rule behind each tag."),
        *options.stream,
    ],
    "run": [options.jobs, options.batch, options.ray, *options.messages],
}
