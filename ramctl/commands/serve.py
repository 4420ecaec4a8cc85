"""`ramctl serve`: a page to try a model on, and the same over HTTP."""

import click

from ramctl.commands import options
from ramctl.commands.options import common, option

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.serving.server:ServeOptions"
HELP = """
The page shows the tags, regions and caption of a photo that you drop on it. POST /tag takes a
photo's bytes and answers with a record. No request can read files of this machine.
"""
EXAMPLES = """
ramctl serve
curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
"""
NOTES = """
POST /tag?threshold=0.5&top=9&labels=cat,dog&boxes=1&caption=1; all parameters are optional. A
form with several photos (curl -F 1=@a.jpg -F 2=@b.jpg) gets a list. GET /healthz shows whether
the model is loaded. Errors are {"code", "message"}: 400 wrong request, 403 sent by another web
page, 408 sent too slowly, 413 too large, 422 unreadable photo, 501 not possible with this
model, 503 too busy.
Exit codes: 1 failed; 2 wrong usage; 130 interrupted, 143 terminated.
"""
OPTIONS = {
    "address": [
        common("--host NAME", "Address to listen on.", default="127.0.0.1"),
        common(
            "--port N",
            "Port to listen on; 0: any free one.",
            type=click.IntRange(0, 65535),
            default=8000,
        ),
    ],
    "model": [options.model, options.labels],
    "limits": [
        common("--max-bytes N", "Refuse larger requests.", default=30_000_000),
        option("--max-pixels N", "Refuse photos with more pixels.", default=100_000_000),
        option(
            "--max-seconds N",
            "Time limit for sending, decoding and tagging a photo.",
            default=30,
        ),
    ],
    "run": [options.device, options.dtype, options.threads, options.quiet, options.verbose],
}
