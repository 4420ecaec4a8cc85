"""`ramctl tag`: photos to tags; and `ramctl import`, which takes photos as it does."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.records.record import KINDS
from ramctl.tagging.formats import FORMATS

TARGET = "ramctl.tagging.run:TagOptions"
HELP = """
Inputs are photos, folders (-R), *.tar, and *.jsonl[.gz] or *.parquet with image. On -
(stdin), a line that starts with { is a record, any other line a path.
"""
EXAMPLES = """
ramctl tag photo.jpg
ramctl tag -R ~/Pictures -o tags.jsonl --resume
find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
"""
NOTES = f"""
Writes tags, the main things first, scores, salience; as asked dense, embedding, boxes,
generated_captions.
Streams: the output is flushed after each batch. `ramctl export` brings the tags into sidecars and
other programs' files.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [
        common("-R, --recursive", "Search folders for photos."),
        option("-0, --null", "Names on stdin end with NUL."),
        option("--by-content", "With --resume: identify photos by content, not by size and time."),
        option("--prune", "With --resume: drop the records of photos that are gone."),
        options.shard,
        options.root,
    ],
    "model": [
        options.model,
        option("--download", "Download the known model that --model names, if it is not here."),
        options.labels,
        option("--thorough", "Look at parts of each photo too: more tags, 3 to 5 times as long."),
        option("--runtime [auto|onnx|torch]", "What runs the model.", default="auto"),
    ],
    "selection": [
        common("--threshold NUMBER|FILE", "Give tags scoring above this [default: the model's]."),
        common("--precision P", "Target precision, 0 to 1."),
        common("--top N", "At most N tags per photo."),
        option("--sort [salience|score]", "Main things first, or by score.", default="salience"),
        option("--kinds KIND,...", f"Only these kinds of tags: {', '.join(KINDS)}."),
        option("--include FILE", "Give only the tags in FILE.", type=options.EXISTING_FILE),
        option("--exclude FILE", "Never give the tags in FILE.", type=options.EXISTING_FILE),
        option("--leaf", "Drop parent tags (animal) when a child (dog) is given."),
        option("--lang CODE", "Name tags in this language, where known.", field="language"),
    ],
    "output": [
        common(
            "-f, --format FORMAT",
            f"{', '.join(FORMATS)} [default: jsonl; terminal: table].",
            type=click.Choice(FORMATS),
        ),
        option("--dense", "Add the scores of all labels."),
        option("--embedding", "Add a vector for ramctl search."),
        option("--boxes", "Add the region of each thing (81 to 94 % right, mini)."),
        common("--caption", "Add a caption, where the model is sure enough of one."),
        option(
            "--caption-style STYLE",
            "short (up to 14 words) or dense, of a model that has both [default: short].",
            type=click.Choice(("short", "dense")),
        ),
        *options.stream,
    ],
    "run": [
        options.jobs("all cores"),
        options.devices,
        options.dtype,
        options.batch,
        options.threads,
        options.ray,
        *options.messages,
    ],
}


class Import:
    """`ramctl import`: photos' own keywords and descriptions to records."""

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
