"""`ramctl parse`: captions to tags, and captions to a label system."""

from ramctl.commands import options
from ramctl.commands.options import common, option
from ramctl.readers.caption_formats import FORMATS

TARGET = "ramctl.parsing.parse_run:ParseOptions"
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
Streams; --build-labels holds four bytes a mention, --group writes temporary files.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        options.root,
        options.shard,
        options.source_format(FORMATS),
        option("--caption-column NAME", "The field with the captions, by another name."),
        option("--image-column NAME", "The field with the photo, by another name."),
        common("--group", "Join the captions of each image."),
    ],
    "labels": [
        common("--labels FILE", "Give only the labels of a file or bundle (mini).", type=str),
        common("--build-labels FILE", "Build a label system; write no records.", writes=True),
        common("--review FILE", "With --build-labels: a table to edit, read again.", writes=True),
    ],
    "output": [
        option(
            "-f, --format [jsonl|ram]",
            "ram: the RAM authors' training JSON (with --labels).",
            field="target_format",
            default="jsonl",
        ),
        option("--keep-tags", "Keep tags that come with the captions, as human ones."),
        common("--explain", "Add the words and the rule behind each tag."),
        *options.stream,
    ],
    "run": [options.jobs("1"), options.batch, options.ray, *options.messages],
}
