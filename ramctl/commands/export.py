"""`ramctl export`: tags to where other programs read them."""

import click

from ramctl.commands import options
from ramctl.commands.options import common, option
from ramctl.export import FORMATS

TARGET = "ramctl.export.export_records:ExportOptions"
HELP = """
Inputs are records with image and tags, from tag, parse or any program. Photos never change.
"""
EXAMPLES = """
ramctl tag -R photos | ramctl export --xmp --gallery page.html
ramctl export tags.jsonl -f coco -o coco.json
"""
_TXT = ("txt_existing", "txt_trigger", "txt_caption", "txt_caption_last")
NEEDS = {"xmp_name": "xmp", **dict.fromkeys(_TXT, "txt")}
NOTES = f"""
Reads image, tags, scores, boxes, generated_captions, captions. Without -f no records are written.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        option("-R, --recursive", "With --...-remove: search folders for photos."),
        options.root,
        options.shard,
    ],
    "selection": [
        option("--threshold NUMBER|FILE", "Only tags above this score."),
        common("--top N", "At most N tags a photo."),
        option("--include TAG,...|FILE", "Only these tags."),
        option("--exclude TAG,...|FILE", "None of these tags."),
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
            "Parent of the tags [default: auto].",
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
        common("--txt", "Merge the tags into IMG.txt, for trainers.", field="text"),
        option(
            "--txt-existing [append|replace|keep]",
            "What is in it already.",
            default="append",
            field="existing_text",
        ),
        option("--txt-trigger WORD", "Begin every text with this word.", field="trigger"),
        option("--txt-caption", "Put the caption before the tags.", field="with_caption"),
        option("--txt-caption-last", "Put the caption after the tags.", field="caption_last"),
        option("--txt-remove", "Remove --txt's words; inputs may be photos.", field="text_remove"),
        option("--txt-counts", "Print how many texts hold each word."),
        common("--dry-run", "List what would change; write nothing."),
    ],
    "output": [
        common("-f, --format FORMAT", f"{', '.join(FORMATS)}.", type=click.Choice(FORMATS)),
        common("--gallery FILE", "Write an HTML page of the photos.", writes=True),
        option("--long", "csv: one row a tag."),
        option("--bom", "csv: begin with a byte order mark, for spreadsheets."),
        option("--title TEXT", "Title of that page."),
        option("--self-contained", "Put previews beside that page, to publish both."),
        common("--review FILE", "Write an HTML page to judge each tag.", writes=True),
        *options.stream,
    ],
    "run": [*options.messages],
}
