"""`ramctl export`: tags to where other programs read them."""

import click

from ramctl.commands import options
from ramctl.commands.options import option
from ramctl.records.output_formats import EXPORT_FORMATS as FORMATS

TARGET = "ramctl.apps.export_records:ExportOptions"
HELP = """
Inputs are records with image and tags, from tag, parse or any program. Photos never change.
"""
EXAMPLES = """
ramctl tag -R photos | ramctl export --xmp --gallery page.html
ramctl export tags.jsonl -f coco -o coco.json
"""
NOTES = f"""
Reads image, tags, scores, boxes, generated_captions, captions. Without -f no records are written.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        option("-R, --recursive", "With --xmp-remove: search folders for photos."),
        options.root,
    ],
    "selection": [
        option("--threshold NUMBER|FILE", "Only tags above this score."),
        option("--top N", "At most N tags a photo."),
        option("--include TAG,...|FILE", "Only these tags."),
        option("--exclude TAG,...|FILE", "None of these tags."),
    ],
    "sidecars": [
        option("--xmp", "Merge the tags into XMP sidecars."),
        option(
            "--xmp-prefix WORD",
            "Parent of the tags [default: auto].",
            field="prefix",
        ),
        option(
            "--xmp-name [full|stem]",
            "IMG.JPG.xmp or IMG.xmp.",
            default="full",
            field="style",
        ),
        option("--xmp-remove", "Remove --xmp's tags; inputs may be photos."),
        option("--forget-refused", "Also write the tags that a person deleted."),
        option("--txt", "Write the tags to IMG.txt, for trainers.", field="text"),
        option(
            "--txt-existing [append|replace|keep]",
            "What is in it already.",
            default="append",
            field="existing_text",
        ),
        option("--txt-trigger WORD", "Begin every text with this word.", field="trigger"),
        option("--txt-caption", "Put the caption before the tags.", field="with_caption"),
        option("--dry-run", "List what would change; write nothing."),
    ],
    "output": [
        option(
            "-f, --format FORMAT",
            f"{', '.join(FORMATS)}.",
            type=click.Choice(FORMATS),
        ),
        option("--gallery FILE", "Write an HTML page of the newest photos.", writes=True),
        *options.stream,
    ],
    "run": [options.quiet],
}
