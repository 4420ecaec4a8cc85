"""INPUT is a folder of photos, or the output of `ramctl tag --embedding`, as JSONL or Parquet. A
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
"""

import click

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.apps.search_photos:SearchOptions"
OPTIONS = {
    "Question": [
        click.Argument(["file"], metavar="INPUT", type=options.FILE_OR_FOLDER),
        click.Argument(["words"], metavar="[WORDS]...", nargs=-1),
        option("--like PHOTO", "Find photos like this one, which may be any photo."),
        option("--duplicates", "List all groups of near-duplicates."),
        option("--lang CODE", "Language of the words [default: found out].", "language"),
        option("-n, --number N", "At most N photos.", default=20),
        options.model,
    ],
    "Output": [
        option("-f, --format [jsonl|text]", "Output format [default: jsonl; terminal: text]."),
    ],
    "Run": [options.quiet],
}
