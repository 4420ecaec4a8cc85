"""`ramctl import`: photos' own keywords and descriptions to records."""

from ramctl.commands import options
from ramctl.commands.base import common, option


class Import:
    """`ramctl import`; the module cannot have its name."""

    TARGET = "ramctl.importing.run:ImportOptions"
    HELP = """
Takes photos as tag does. Reads sidecars (IMG.JPG.xmp, IMG.xmp), metadata inside the photo (XMP,
IPTC, Exif), IMG.txt and IMG.caption, and Google Takeout's JSON.
"""
    EXAMPLES = """
ramctl import -R photos -o mine.jsonl
ramctl import -R photos --labels-out labels.jsonl
ramctl import 'Lightroom Keywords.txt' --labels-out labels.jsonl
"""
    NOTES = f"""
Reads image; writes tags, sources, parents, captions, people; refused, tags of export that were
taken out, and confirmed, the others of such a photo. A photo without keywords has no tags. With
--labels-out records are written with -o only, and inputs may be lists of keywords (*.txt).
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
