"""Existing tags stay. A tag that clean has removed is not added again.

Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags. Memory stays constant.

Examples:
  ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
  ramctl generate tagged.jsonl -o more.jsonl --captions 0 --precision 0.9
"""

import click

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.data_engine.additions:GenerateOptions"
OPTIONS = {
    "Input": [options.inputs, options.root, options.shard],
    "Model": [
        options.model,
        option(
            "--captions N", "Add at most N captions a photo.", type=click.IntRange(0), default=1
        ),
        option("--threshold NUMBER|FILE", "Add tags above this score."),
        option("--precision P", "Target precision of added tags [default: 0.8]."),
    ],
    "Output": options.stream,
    "Run": [options.devices, options.jobs, options.ray, options.quiet],
}
