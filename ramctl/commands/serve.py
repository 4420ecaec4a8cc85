"""`ramctl serve`: a page to try a model on, and the same over HTTP."""

import click

from ramctl.commands import options
from ramctl.commands.options import option

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.apps.server:ServeOptions"
HELP = """
The page shows the tags, regions and caption of a photo that you drop on it. POST /tag takes a
photo's bytes and answers with a record. No request can read files of this machine.
"""
EXAMPLES = """
ramctl serve
curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
"""
NOTES = """
POST /tag?threshold=0.5&top=9&labels=cat,dog&kinds=object&lang=de&boxes=1&caption=1, or
precision=0.9 instead of threshold; all parameters are optional. Errors are {"code", "message"}.
Exit codes: 1 failed; 2 wrong usage; 130 interrupted, 143 terminated.
"""
OPTIONS = {
    "address": [
        option("--host NAME", "Address to listen on.", default="127.0.0.1"),
        option("--port N", "Port; 0: any free one.", type=click.IntRange(0, 65535), default=8000),
    ],
    "model": [options.model, options.labels],
    "run": [options.device, options.quiet],
}
