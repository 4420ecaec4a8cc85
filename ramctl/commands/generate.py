"""`ramctl generate`: the data engine's generation as a filter."""

import click

from ramctl.commands import options
from ramctl.commands.base import common

TARGET = "ramctl.data_engine.generate:GenerateOptions"
EXTRA = "train"
HELP = "Tags are only added; a tag that clean has removed is not added again."
EXAMPLES = """
ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
ramctl generate tagged.jsonl -o more.jsonl --captions 3 --decode nucleus:0.9
"""
NOTES = f"""
Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags. Streams.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root, options.shard],
    "model": [
        options.model,
        common(
            "--captions N",
            "Captions per photo; beam search may find fewer.",
            type=click.IntRange(0),
            default=1,
        ),
        common(
            "--decode beam:K|nucleus:P",
            "Beam search or nucleus sampling of captions.",
            default="beam:3",
        ),
        common("--threshold NUMBER|FILE", "Add tags above this score."),
        common(
            "--precision P",
            "Target precision of added tags, 0 to 1 [default: 0.8, if the model is calibrated].",
        ),
    ],
    "output": options.stream,
    "run": [
        options.jobs,
        options.batch,
        options.threads,
        options.devices,
        options.dtype,
        options.seed,
        options.ray,
        *options.messages,
    ],
}
