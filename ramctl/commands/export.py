"""Inputs are records with image and tags, from tag, parse or any program. Photos never change.

Reads image, tags, scores, boxes, generated_captions, captions. Without -f no records are written.

Examples:
  ramctl tag -R photos | ramctl export --xmp --gallery page.html
  ramctl export tags.jsonl -f coco -o coco.json
"""

from click import Choice

from ramctl.commands import options
from ramctl.commands.options import OUTPUT, option
from ramctl.records.output_formats import EXPORT_FORMATS as FORMATS

TARGET = "ramctl.apps.export_records:ExportOptions"
OPTIONS = {
    "Input": [
        options.inputs,
        option("-R, --recursive", "With --xmp-remove: search folders for photos."),
        options.root,
    ],
    "Selection": [
        option("--threshold NUMBER|FILE", "Only tags above this score."),
        option("--top N", "At most N tags a photo."),
        option("--include TAG,...|FILE", "Only these tags."),
        option("--exclude TAG,...|FILE", "None of these tags."),
    ],
    "Sidecars": [
        option("--xmp", "Merge the tags into XMP sidecars."),
        option("--xmp-prefix WORD", "Parent of the tags [default: auto].", "prefix"),
        option("--xmp-name [full|stem]", "IMG.JPG.xmp or IMG.xmp.", "style", default="full"),
        option("--xmp-remove", "Remove --xmp's tags; inputs may be photos."),
        option("--forget-refused", "Also write the tags that a person deleted."),
        option("--txt", "Write the tags to IMG.txt, for trainers.", "text"),
        option(
            "--txt-existing [append|replace|keep]",
            "What is in it already.",
            "existing_text",
            default="append",
        ),
        option("--txt-trigger WORD", "Begin every text with this word.", "trigger"),
        option("--txt-caption", "Put the caption before the tags.", "with_caption"),
        option("--dry-run", "List what would change; write nothing."),
    ],
    "Output": [
        option("-f, --format FORMAT", f"{', '.join(FORMATS)}.", type=Choice(FORMATS)),
        option("--gallery FILE", "Write an HTML page of the newest photos.", type=OUTPUT),
        options.output,
        options.rejects,
    ],
    "Run": [options.quiet],
}
