"""`ramctl serve`: a page to try a model on, and the same over HTTP."""

import click

from ramctl.commands import options
from ramctl.commands.options import common, option

ARGUMENTS: list[click.Argument] = []
TARGET = "ramctl.serving.server:ServeOptions"
HELP = """
The page shows the tags, regions and caption of photos that you drop on it. POST /tag takes a
photo's bytes and answers with a record. No request can read files but the photos of --index.
"""
EXAMPLES = """
ramctl serve
curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
ramctl serve --index ~/Pictures
"""
NOTES = """
POST /tag?threshold=0.5&top=9&labels=cat,dog&lang=de&boxes=1&caption=1&embedding=1, or
precision=0.9 instead of threshold; all parameters are optional. A form with several photos
(curl -F 1=@a.jpg -F 2=@b.jpg) gets a list. GET /search?words=dog&top=9&lang=de finds photos of
--index. GET /healthz shows whether the model is loaded, GET /metrics counts for Prometheus.
Errors are {"code", "message"}; GET /openapi.json describes all.
Exit codes: 1 failed; 2 wrong usage; 130 interrupted, 143 terminated.
"""
OPTIONS = {
    "address": [
        common("--host NAME", "Address to listen on.", default="127.0.0.1"),
        common("--port N", "Port; 0: any free one.", type=click.IntRange(0, 65535), default=8000),
        common("--allow-origin URL", "Page that may send requests; repeatable.", multiple=True),
    ],
    "model": [
        options.model, options.labels,
        common("--index INPUT", "Search these photos or records.", type=options.FILE_OR_FOLDER),
    ],
    "limits": [
        common("--max-bytes N", "Refuse larger requests.", default=30_000_000),
        option("--max-pixels N", "Refuse photos with more pixels.", default=100_000_000),
        option("--max-seconds N", "Time limit for sending, and for tagging.", default=30),
    ],
    "run": [
        common("--access-log", "Write a line of JSON for each request to stdout."),
        options.device, options.dtype, options.threads, options.quiet, options.verbose,
    ],
}  # fmt: skip
