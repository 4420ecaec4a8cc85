"""`ramctl parse`: captions to tags, and captions to a label system."""

from ramctl.captions.caption_formats import FORMATS
from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.parsing.parse_run:ParseOptions"
EXTRA = "parse"
HELP = """
Every visible thing, place, property or action that a caption names becomes a tag; with
--labels only the labels in that file. Input formats are recognised; --from forces one.
"""
EXAMPLES = """
ramctl parse captions.jsonl > tagged.jsonl
ramctl parse --build-labels labels.jsonl --review labels.tsv captions.jsonl
ramctl parse --labels labels.jsonl --from coco captions_val2017.json
"""
NOTES = f"""
Reads captions (or caption); writes tags, caption_tags, kinds, sources; with --explain, explain.
Memory stays constant. --group writes temporary files.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        options.root,
        options.shard,
        options.source_format(FORMATS),
        option("--caption-column NAME", "Name of the field with the captions.", field="caption"),
        option("--image-column NAME", "Name of the field with the photo.", field="image"),
        option("--group", "Join all captions of a photo into one record."),
    ],
    "labels": [
        option(
            "--labels FILE",
            "Give only the labels of a file or bundle (mini).",
            type=options.read_labels,
        ),
        option("--build-labels FILE", "Build a label system; write no records.", writes=True),
        option(
            "--merge FILE", "With --build-labels: a class list to add; repeatable.", multiple=True
        ),
        option("--size N", "With --build-labels: the most frequent N labels [default: 4585]."),
        option("--review FILE", "With --build-labels: a table to edit, then rerun.", writes=True),
    ],
    "output": [
        option(
            "-f, --format [jsonl|tags|ram]",
            "tags: image and tags alone; ram: the RAM authors' training JSON (with --labels).",
            field="target_format",
            default="jsonl",
        ),
        option("--keep-tags", "Keep the input's own tags, as a person's tags."),
        option("--explain", "Add the words and the rule behind each tag."),
        *options.stream,
    ],
    "run": [options.jobs("all cores"), options.batch, options.ray, options.quiet],
}
