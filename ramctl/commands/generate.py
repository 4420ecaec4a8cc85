"""`ramctl generate`: adds tags and captions to records."""

import click

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.data_engine.additions:GenerateOptions"
EXTRA = "train"
HELP = "Existing tags stay. A tag that clean has removed is not added again."
EXAMPLES = """
ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
ramctl generate tagged.jsonl -o more.jsonl --captions 0 --precision 0.9
"""
NOTES = f"""
Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags. Memory stays constant.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root, options.shard],
    "model": [
        options.model,
        option(
            "--captions N",
            "Add at most N captions a photo.",
            type=click.IntRange(0),
            default=1,
        ),
        option("--threshold NUMBER|FILE", "Add tags above this score."),
        option("--precision P", "Target precision of added tags [default: 0.8]."),
    ],
    "output": options.stream,
    "run": [options.devices, *options.engine_run, options.ray, options.quiet],
}
