"""`ramctl generate`: adds tags and captions to records."""

import click

from ramctl.commands import options
from ramctl.commands.options import common

TARGET = "ramctl.data_engine.additions:GenerateOptions"
EXTRA = "train"
HELP = "Existing tags stay. A tag that clean has removed is not added again."
EXAMPLES = """
ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
ramctl generate tagged.jsonl -o more.jsonl --evidence a.jsonl
"""
NOTES = f"""
Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags; with --evidence, chances (probabilities of tags).
Memory stays constant, but --evidence reads all records first. --evidence FILE,map=FILE
maps names to labels by lines of label<TAB>name|name.
{options.EXIT_CODES}
"""
RIVALS = ("threshold", "precision")
OPTIONS = {
    "input": [options.root, options.shard],
    "model": [
        options.model,
        common(
            "--captions N",
            "Add at most N captions a photo.",
            type=click.IntRange(0),
            default=1,
        ),
        common("--decode beam:K|nucleus:P", "How captions are found [default: the model's]."),
        common("--threshold NUMBER|FILE", "Add tags above this score."),
        common("--precision P", "Target precision of added tags [default: 0.8]."),
        common(
            "--evidence FILE",
            "Scores of another tagger or of captions; repeatable.",
            multiple=True,
            type=str,  # may end in ,map=FILE
        ),
    ],
    "output": options.stream,
    "run": [options.devices, *options.engine_run, options.ray, *options.messages],
}
