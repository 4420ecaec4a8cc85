"""`ramctl tag`: photos to tags."""

from pathlib import Path

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.records.record import KINDS
from ramctl.tagging.formats import FORMATS

TARGET = "ramctl.tagging.run:TagOptions"
HELP = """
Inputs are photos, folders (-R), *.tar, and *.jsonl[.gz] with image. On - (stdin), a line
that starts with { is a record, any other line a path.
"""
EXAMPLES = """
ramctl tag photo.jpg
find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
"""
NOTES = f"""
Writes tags by falling score, scores; as asked dense, boxes, generated_captions.
Streams: the output is flushed after each batch.
{options.EXIT_CODES}
"""
TEXT = click.Path(exists=True, dir_okay=False, path_type=Path)
OPTIONS = {
    "input": [
        common("-R, --recursive", "Search folders for photos."),
        option(
            "--ignore GLOB",
            "With -R: skip matching files and folders, like .ramctlignore.",
            multiple=True,
            type=str,
        ),
        option("-0, --null", "Names on stdin end with NUL."),
        option("--from-tags", "Inputs are records of an earlier run; use their tags."),
        option("--by-content", "With --resume: identify photos by content, not by size and time."),
        option("--prune", "With --resume: drop the records of photos that are gone."),
        option("--max-pixels N", "Reject larger photos.", default=200_000_000),
        option("--max-bytes N", "Reject photos in larger files.", default=1_000_000_000),
        option(
            "--max-seconds N",
            "Reject photos that take longer to decode, or their sidecars.",
            default=60,
        ),
        options.max_line,
        options.shard,
        options.root,
    ],
    "model": [
        options.model,
        options.labels,
        option(
            "--preprocess [official|fast]",
            "Read photos as the authors' code does, or upright and faster [default: the model's].",
        ),
        option("--runtime [auto|onnx|torch]", "What runs the model.", default="auto"),
    ],
    "selection": [
        common("--threshold NUMBER|FILE", "Give tags scoring above this [default: the model's]."),
        common(
            "--precision P",
            "Target precision, 0 to 1.",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
        ),
        common("--top N", "At most N tags per photo."),
        option(
            "--kinds KIND,...",
            f"Only these kinds of tags: {', '.join(KINDS)}.",
            type=options.words_of(KINDS),
        ),
        option("--include FILE", "Give only the tags in FILE.", type=TEXT),
        option("--exclude FILE", "Never give the tags in FILE.", type=TEXT),
        option("--rename FILE", "Rename tags, by lines of tag<TAB>name.", type=TEXT),
        option("--leaf", "Drop parent tags (animal) when a child (dog) is given."),
        option("--lang CODE", "Name tags in this language, where known.", field="language"),
    ],
    "output": [
        common(
            "-f, --format FORMAT",
            f"{', '.join(FORMATS)} [default: jsonl; terminal: table].",
            field="form",
            type=click.Choice(FORMATS),
        ),
        option("--spreadsheet", "With csv, tsv: put ' before cells that would be formulas."),
        option(
            "--photos-at PLACE", "Folder or URL where fiftyone, label-studio, coco find photos."
        ),
        option("--label-config FILE", "Write Label Studio's labelling configuration.", writes=True),
        option("--dense", "Add the scores of all labels."),
        option("--boxes", "Add the region of each thing (81 to 94 % right, mini)."),
        common("--caption", "Add a caption."),
        option("--specified-tags TAGS", "Guide the caption by these tags instead: a,b.", type=str),
        option(
            "--caption-length N",
            "Maximum caption length in tokens [default: 30].",
            type=click.IntRange(1),
        ),
        common("--gallery FILE", "Write an HTML page of the photos.", writes=True),
        *options.stream,
    ],
    "sidecars": [
        common("--xmp", "Merge the tags into XMP sidecars."),
        option(
            "--xmp-prefix WORD",
            "Parent of machine tags, as in auto|dog.",
            default="auto",
            field="prefix",
        ),
        option(
            "--xmp-prefix-flat", "Mark plain keywords too, not only paths.", field="flat_prefix"
        ),
        option(
            "--xmp-name [full|stem]",
            "Name of new sidecars: IMG.JPG.xmp or IMG.xmp.",
            default="full",
            field="style",
        ),
        option("--xmp-remove", "Remove machine tags from XMP sidecars; tag nothing."),
        option("--forget-refused", "Write tags again that were removed from sidecars by hand."),
        option("--txt", "Write the tags to IMG.txt, for trainers.", field="text"),
        option(
            "--txt-existing [append|replace|keep]",
            "What to do with an IMG.txt that exists.",
            default="append",
            field="existing_text",
        ),
        option("--txt-caption", "Put the caption before the tags.", field="with_caption"),
        option("--txt-first TAGS", "Put these tags first if present: a,b.", field="first"),
        option(
            "--txt-separator TEXT",
            "Separator between tags.",
            default=", ",
            field="separator",
            type=str,
        ),
        option(
            "--txt-extension WORD",
            "File extension, as in IMG.WORD.",
            default=".txt",
            field="extension",
        ),
        option("--txt-underscores", "Write hot_dog, not hot dog.", field="underscores"),
        option("--tag-counts FILE", "Write a table of how many photos have each tag.", writes=True),
        option("--dry-run", "Say which sidecars would change, and write none."),
    ],
    "run": [
        common(
            "-j, --jobs N", "Photos processed in parallel [default: all cores].", field="workers"
        ),
        options.devices,
        options.dtype,
        options.batch,
        options.threads,
        options.ray,
        option("--lock FILE", "Wait for another run that holds this lock."),
        *options.messages,
    ],
}
