"""`ramctl export`: tags to where other programs read them."""

import click

from ramctl.commands import options
from ramctl.commands.options import common, option
from ramctl.export import FORMATS

TARGET = "ramctl.export.export_records:ExportOptions"
HELP = """
Inputs are records with image and tags, from tag, parse or any program. Photos never change.
Run it again to update sidecars.
"""
EXAMPLES = """
ramctl tag -R photos | ramctl export --xmp
ramctl export tags.jsonl --xmp --gallery page.html
ramctl export tags.jsonl -f coco -o coco.json
ramctl export --xmp-remove -R photos
"""
NOTES = f"""
Reads image, tags, scores, boxes, generated_captions, captions. Without -f no records are written.
In csv, a cell that begins with =, +, - or @ gets a ' in front: spreadsheets would run it.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        option("-R, --recursive", "With --xmp-remove: search folders for photos."),
        options.root,
        options.shard,
    ],
    "selection": [
        option("--threshold NUMBER|FILE", "Only tags above this score."),
        common("--top N", "At most N tags a photo."),
        option("--include FILE", "Only the tags in FILE.", type=options.EXISTING_FILE),
        option("--exclude FILE", "None of the tags in FILE.", type=options.EXISTING_FILE),
        option("--rename FILE", "Rename tags: lines of tag<TAB>name.", type=options.EXISTING_FILE),
        option(
            "--decisions FILE",
            "Apply decisions from a --review page; repeatable.",
            multiple=True,
        ),
    ],
    "sidecars": [
        common("--xmp", "Merge the tags into XMP sidecars."),
        option(
            "--xmp-prefix WORD",
            "Parent of the tags, as in auto|dog.",
            default="auto",
            field="prefix",
        ),
        option(
            "--xmp-name [full|stem]",
            "IMG.JPG.xmp or IMG.xmp.",
            default="full",
            field="style",
        ),
        common("--xmp-remove", "Remove --xmp's tags; inputs may be photos."),
        option("--forget-refused", "Also write the tags that a person deleted."),
        common("--txt", "Write the tags to IMG.txt, for trainers.", field="text"),
        option(
            "--txt-existing [append|replace|keep]",
            "What to do with an IMG.txt that exists.",
            default="append",
            field="existing_text",
        ),
        option("--txt-trigger WORD", "Begin every text with this word.", field="trigger"),
        option("--txt-caption", "Put the caption before the tags.", field="with_caption"),
        common("--dry-run", "List the sidecars that would change; write nothing."),
    ],
    "output": [
        common("-f, --format FORMAT", f"{', '.join(FORMATS)}.", type=click.Choice(FORMATS)),
        common("--gallery FILE", "Write an HTML page of the photos.", writes=True),
        common("--review FILE", "Write an HTML page to judge each tag.", writes=True),
        *options.stream,
    ],
    "run": [*options.messages],
}
