"""`ramctl import`: photos' own keywords and descriptions to records."""

from ramctl.commands import options
from ramctl.commands.options import common, option

TARGET = "ramctl.importing.import_photos:ImportOptions"
HELP = """
Takes the inputs of tag. Reads sidecars (IMG.JPG.xmp, IMG.xmp), metadata inside the photo (XMP,
IPTC, Exif), IMG.txt and IMG.caption, and Google Takeout's JSON.
"""
EXAMPLES = """
ramctl import -R photos -o mine.jsonl
ramctl import -R photos --labels-out labels.jsonl
ramctl import 'Lightroom Keywords.txt' --labels-out labels.jsonl
"""
NOTES = f"""
Reads image; writes tags, sources, parents, captions, people; refused, the tags of export
that a person removed, and confirmed, the others of that photo. A photo without keywords has no
tags. --labels-out writes records with -o only, and takes lists of keywords (*.txt).
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        common("-R, --recursive", "Search folders for photos."),
        option("-0, --null", "Names on stdin end with NUL."),
        options.shard,
        options.root,
    ],
    "output": [
        common("--people", "Use people's names as tags too."),
        common("--labels-out FILE", "Write the keywords as a label system.", writes=True),
        *options.stream,
    ],
    "run": [options.batch, *options.messages],
}
