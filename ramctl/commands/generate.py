"""`ramctl generate`: the data engine's generation as a filter."""

from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand, filled, option

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
    "input": [options.root],
    "model": [
        options.model,
        option(
            "--captions N",
            "Captions per photo; beam search may find fewer.",
            name="n_captions",
            type=click.IntRange(0),
            default=1,
            common=True,
            field="captions",
        ),
        option(
            "--decode beam:K|nucleus:P",
            "Beam search or nucleus sampling of captions.",
            default="beam:3",
            common=True,
        ),
        option(
            "--threshold NUMBER|FILE",
            "Add tags above this score [default: the model's].",
            common=True,
        ),
        option(
            "--confirm SHARE",
            "Share of its threshold that a caption's tag must reach.",
            default=0.5,
            common=True,
        ),
    ],
    "output": options.stream,
    "run": [*options.engine_run, *options.messages],
}


def call(**values: Any) -> int:
    from ramctl.data_engine.generate import GenerateOptions, run

    return run(filled(GenerateOptions, values)).exit_code


command = RamctlCommand(
    "generate", call, options.inputs, OPTIONS, help=HELP, examples=EXAMPLES, notes=NOTES
)
