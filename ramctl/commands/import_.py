"""Inputs are those of tag. Reads sidecars (IMG.JPG.xmp, IMG.xmp) and metadata in the photo (XMP,
IPTC, Exif).

Reads image; writes tags, sources, captions; refused (tags of export that a person deleted) and
confirmed (the other tags of export on that photo).

Examples:
  ramctl import -R photos -o mine.jsonl
  ramctl import -R photos | jq -r '.tags[]?' | sort -u > words.txt
"""

from ramctl.commands import options

TARGET = "ramctl.apps.import_photos:ImportOptions"
OPTIONS = {"Input": options.photos, "Output": options.stream}
