"""The page shows the tags, regions and caption of a photo that you drop on it. POST /tag takes a
photo's bytes and answers with a record. No request can read files of this machine.

POST /tag?threshold=0.5&top=9&labels=cat,dog&lang=de&boxes=1&caption=1, or
precision=0.9 instead of threshold; all parameters are optional. Errors are {"code", "message"}.

Examples:
  ramctl serve
  curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
"""

import click

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.apps.server:ServeOptions"
OPTIONS = {
    "Address": [
        option("--host NAME", "Address to listen on.", default="127.0.0.1"),
        option("--port N", "Port; 0: any free one.", type=click.IntRange(0, 65535), default=8000),
    ],
    "Model": [options.model, options.labels],
    "Run": [options.device],
}
