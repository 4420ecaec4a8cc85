"""The commands of people with photos, and their options."""

import click
from click import Choice

from ramctl.commands import shared_options as options
from ramctl.commands.command import Command
from ramctl.commands.shared_options import OUTPUT, option
from ramctl.records.choices import EXPORT_FORMATS, FORMATS

DTYPES = ("auto", "fp32", "bf16", "fp16", "int8")

tag = Command(
    "tag",
    "Tag photos with the built-in model or your own.",
    """
Inputs are photos, folders (-R), *.tar, and *.jsonl[.gz] or *.parquet with image. On -
(stdin), a line that starts with { is a record, any other line a path.

Writes tags (main subject first), scores; dense, embedding, boxes, generated_captions.

Examples:
  ramctl tag photo.jpg
  ramctl tag -R ~/Pictures -o tags.jsonl --resume
  find ~/Pictures -iname '*.jpg' -print0 | ramctl tag -0 -f text -
""",
    "ramctl.inference.tag_photos:TagOptions",
    "Input",
    *options.photos,
    option("-0, --null", "Names on stdin end with NUL."),
    options.shard,
    "Model",
    options.model,
    options.labels,
    option("--thorough", "Score parts of each photo too: 3 to 5 times slower."),
    "Selection",
    option("--threshold NUMBER|FILE", "Give tags above this score [default: the model's]."),
    option("--precision P", "Target precision of the tags, 0 to 1."),
    option("--top N", "At most N tags a photo."),
    option("--lang CODE", "Language of the tags and of lists, such as de."),
    "Output",
    option("-f, --format FORMAT", f"{', '.join(FORMATS)} [terminal: table].", type=Choice(FORMATS)),
    option("--dense", "Add the scores of all labels."),
    option("--embedding", "Add a vector for ramctl search."),
    option("--boxes", "Add the region of each thing."),
    option("--caption", "Add a caption, if the model is confident."),
    *options.stream,
    "Run",
    options.jobs,
    options.devices,
    option("--dtype TYPE", f"{', '.join(DTYPES)}.", type=Choice(DTYPES), default="auto"),
    options.ray,
    options.quiet,
    # Threads of numpy's that wait for work would double the core-time: tag has its own.
    environment={"OPENBLAS_NUM_THREADS": "1"},
)

search = Command(
    "search",
    "Find photos by words or by likeness, and near-duplicates.",
    """
INPUT is a folder of photos, or the output of `ramctl tag --embedding`, as JSONL or Parquet. A
folder is indexed first; later searches read only new photos. Words find labels, and photos that
have them as keywords.

Writes the records of the photos found, best first, with score; --duplicates writes images, one
line a group, the largest file first.

Examples:
  ramctl search ~/Pictures a dog on a beach
  ramctl search ~/Pictures Hunde am Strand --lang de
  ramctl search tags.jsonl --like photo.jpg -n 5
  ramctl search tags.jsonl a red car | ramctl export --gallery page.html
  ramctl search tags.jsonl --duplicates
""",
    "ramctl.apps.search_photos:SearchOptions",
    "Question",
    click.Argument(["file"], metavar="INPUT", type=options.FILE_OR_FOLDER),
    click.Argument(["words"], metavar="[WORDS]...", nargs=-1),
    option("--like PHOTO", "Find photos like this one, which may be any photo."),
    option("--duplicates", "List all groups of near-duplicates."),
    option("--lang CODE", "Language of the words [default: found out].", "language"),
    option("-n, --number N", "At most N photos.", default=20),
    options.model,
    "Output",
    option("-f, --format [jsonl|text]", "Output format [default: jsonl; terminal: text]."),
    "Run",
    options.quiet,
)

export = Command(
    "export",
    "Write tags into sidecars, other programs' files and pages.",
    """
Inputs are records with image and tags, from tag, parse or any program. Photos never change.

Reads image, tags, scores, boxes, generated_captions, captions. Without -f no records are written.

Examples:
  ramctl tag -R photos | ramctl export --xmp --gallery page.html
  ramctl export tags.jsonl -f coco -o coco.json
""",
    "ramctl.apps.export_records:ExportOptions",
    "Input",
    options.inputs,
    option("-R, --recursive", "With --xmp-remove: search folders for photos."),
    options.root,
    "Selection",
    option("--threshold NUMBER|FILE", "Only tags above this score."),
    option("--top N", "At most N tags a photo.", type=click.IntRange(0)),
    option("--include TAG,...|FILE", "Only these tags."),
    option("--exclude TAG,...|FILE", "None of these tags."),
    "Sidecars",
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
    "Output",
    option("-f, --format FORMAT", f"{', '.join(EXPORT_FORMATS)}.", type=Choice(EXPORT_FORMATS)),
    option("--gallery FILE", "Write an HTML page of the newest photos.", type=OUTPUT),
    options.output,
    options.rejects,
    "Run",
    options.quiet,
)

import_ = Command(
    "import",
    "Read photos' own keywords and captions, as records or labels.",
    """
Inputs are those of tag. Reads sidecars (IMG.JPG.xmp, IMG.xmp) and metadata in the photo (XMP,
IPTC, Exif).

Reads image; writes tags, sources, captions; refused (tags of export that a person deleted) and
confirmed (the other tags of export on that photo).

Examples:
  ramctl import -R photos -o mine.jsonl
  ramctl import -R photos | jq -r '.tags[]?' | sort -u > words.txt
""",
    "ramctl.apps.import_photos:ImportOptions",
    "Input",
    *options.photos,
    "Output",
    *options.stream,
)

serve = Command(
    "serve",
    "Tag photos on a page in the browser, and over HTTP.",
    """
The page shows the tags, regions and caption of a photo that you drop on it. POST /tag takes a
photo's bytes and answers with a record. No request can read files of this machine.

POST /tag?threshold=0.5&top=9&labels=cat,dog&lang=de&boxes=1&caption=1, or
precision=0.9 instead of threshold; all parameters are optional. Errors are {"code", "message"}.

Examples:
  ramctl serve
  curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
""",
    "ramctl.apps.server:ServeOptions",
    "Address",
    option("--host NAME", "Address to listen on.", default="127.0.0.1"),
    option("--port N", "Port; 0: any free one.", type=click.IntRange(0, 65535), default=8000),
    "Model",
    options.model,
    options.labels,
    "Run",
    options.device,
)

COMMANDS = [tag, search, export, import_, serve]
