"""Fits labels to 20 to 5,000 photos with parsed captions, keywords or corrections, in minutes.
Things that five captions name become labels. Photos of other kinds are tagged as before.

Reads image, tags, kinds, captions, caption_tags, confirmed, refused. Writes a bundle to OUT; a
stopped run starts again.

Examples:
  ramctl parse captions.jsonl | ramctl fit --out mine
  ramctl import -R photos | ramctl fit --out mine
"""

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.training.fit:FitOptions"
OPTIONS = {
    "Input": [options.inputs, options.root],
    "Model": [
        options.model,
    ],
    "Output": [
        option("--out DIR", "Bundle to write.", default="fitted"),
        options.rejects,
    ],
}
