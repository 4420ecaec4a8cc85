"""`ramctl import`: photos' own keywords and descriptions to records."""

from ramctl.commands import options
from ramctl.commands.options import common

TARGET = "ramctl.importing.import_photos:ImportOptions"
HELP = """
Inputs are those of tag. Reads sidecars (IMG.JPG.xmp, IMG.xmp), metadata in the photo (XMP,
IPTC, Exif), IMG.txt, IMG.caption and Google Takeout's JSON.
"""
EXAMPLES = """
ramctl import -R photos -o mine.jsonl
ramctl import -R photos --labels-out labels.jsonl
ramctl import 'Lightroom Keywords.txt' --labels-out labels.jsonl
"""
NOTES = f"""
Reads image; writes tags, sources, parents, captions, people; refused (tags of export that a
person deleted) and confirmed (the other tags of export on that photo). With --labels-out,
inputs may also be keyword lists (*.txt), and records are written only to -o.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": options.photos,
    "output": [
        common("--people", "Use people's names as tags too."),
        common("--labels-out FILE", "Write the keywords as a label system.", writes=True),
        *options.stream,
    ],
    "run": [options.batch, *options.messages],
}
