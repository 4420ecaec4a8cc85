"""`ramctl search`: vectors of photos and a question in, photos out."""

import click

from ramctl.commands import options
from ramctl.commands.options import common, path_completer

TARGET = "ramctl.photo_search:SearchOptions"
HELP = """
FILE is the output of `ramctl tag --embedding`, as JSONL or Parquet. Photos are not read again.
"""
EXAMPLES = """
ramctl tag --embedding -R photos -o tags.jsonl
ramctl search tags.jsonl a dog on a beach
ramctl search tags.jsonl --like photo.jpg -n 5
ramctl search tags.jsonl a red car | ramctl export --gallery page.html
ramctl search tags.jsonl --duplicates
"""
NOTES = """
Writes the records of the photos found, best first, with a score; --duplicates writes images,
one line a group.
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but some vectors were rejected.
"""
ARGUMENTS = [
    click.Argument(
        ["file"], metavar="FILE", type=options.FILE_OR_FOLDER,
        shell_complete=path_completer("FILE"),
    ),
    click.Argument(["words"], metavar="[WORDS]...", nargs=-1),
]  # fmt: skip
OPTIONS = {
    "question": [
        common("--like PHOTO", "Find photos like this one, which may be any photo."),
        common("--duplicates", "List all groups of near-duplicates."),
        common("-n, --number N", "At most N photos.", default=20),
        options.model,
    ],
    "output": [
        common("-f, --format [jsonl|text]", "Output format [default: jsonl; terminal: text]."),
    ],
    "run": [options.quiet, options.verbose],
}
