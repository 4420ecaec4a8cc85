"""Every visible thing, place, property or action that a caption names becomes a tag; with
--labels only the labels in that file. Input formats are recognised; --from forces one.

Reads captions (or caption); writes tags, caption_tags, kinds, sources; with --explain, explain.
Memory stays constant, but --group holds all records in memory.

Examples:
  ramctl parse captions.jsonl > tagged.jsonl
  ramctl parse --build-labels labels.jsonl --review labels.tsv captions.jsonl
  ramctl parse --labels labels.jsonl --from coco captions_val2017.json
"""

from typing import Any

from click import Choice

from ramctl.captions.caption_formats import FORMATS
from ramctl.commands import options
from ramctl.commands.options import OUTPUT, option


def read_labels(name: str) -> Any:
    """The label system in a file or bundle."""
    from ramctl.checkpoints.bundle import read_labels  # which takes a while

    return read_labels(name)


TARGET = "ramctl.parsing.parse_run:ParseOptions"
OPTIONS = {
    "Input": [
        options.inputs,
        options.root,
        options.shard,
        option(
            "--from FORMAT",
            f"{', '.join(FORMATS)} [default: recognised].",
            "source_format",
            type=Choice(FORMATS),
        ),
        option("--caption-column NAME", "Name of the field with the captions.", "caption"),
        option("--image-column NAME", "Name of the field with the photo.", "image"),
        option("--group", "Join all captions of a photo into one record."),
    ],
    "Labels": [
        option(
            "--labels FILE", "Give only the labels of a file or bundle (mini).", type=read_labels
        ),
        option("--build-labels FILE", "Build a label system; write no records.", type=OUTPUT),
        option(
            "--merge FILE", "With --build-labels: a class list to add; repeatable.", multiple=True
        ),
        option("--size N", "With --build-labels: the most frequent N labels [default: 4585]."),
        option("--review FILE", "With --build-labels: a table to edit, then rerun.", type=OUTPUT),
    ],
    "Output": [
        option(
            "-f, --format [jsonl|tags|ram]",
            "tags: image and tags alone; ram: the RAM authors' training JSON (with --labels).",
            "target_format",
            default="jsonl",
        ),
        option("--keep-tags", "Keep the input's own tags, as a person's tags."),
        option("--explain", "Add the words and the rule behind each tag."),
        *options.stream,
        options.strict,
        options.stats,
    ],
    "Run": [options.jobs, options.ray, options.quiet],
}
