"""`ramctl import`: photos' own keywords and descriptions to records."""

from ramctl.commands import options

TARGET = "ramctl.apps.import_photos:ImportOptions"
HELP = """
Inputs are those of tag. Reads sidecars (IMG.JPG.xmp, IMG.xmp) and metadata in the photo (XMP,
IPTC, Exif).
"""
EXAMPLES = """
ramctl import -R photos -o mine.jsonl
ramctl import -R photos | jq -r '.tags[]?' | sort -u > words.txt
"""
NOTES = f"""
Reads image; writes tags, sources, captions; refused (tags of export that a person deleted) and
confirmed (the other tags of export on that photo).
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": options.photos,
    "output": options.stream,
    "run": [options.quiet],
}
