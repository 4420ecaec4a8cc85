"""ramctl generate: the data engine's generation as a filter."""

from typing import Any

import click

from ramctl.commands import options as common
from ramctl.commands.base import RamctlCommand, option
from ramctl.commands.options import baseline_options, stream_options
from ramctl.records.inputs import named_or_stdin, read_inputs, require_files
from ramctl.records.report import Report

EPILOG = """
Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags. Tags are added, never removed; a tag in removed
is not added again. Streams.
Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 some inputs rejected, 130 interrupted.
"""


@click.command("generate", cls=RamctlCommand, epilog=EPILOG)
@common.inputs
@common.root
@common.stream
@common.model
@option(
    "--captions",
    "n_captions",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    group="model",
    help="Captions a photo; beam search may find fewer.",
)
@option(
    "--decode",
    default="beam:3",
    show_default=True,
    metavar="beam:K|nucleus:P",
    group="model",
    help="How captions are searched or sampled.",
)
@option(
    "--threshold",
    metavar="NUMBER|FILE",
    group="model",
    help="A tag must score higher to be added [default: the model's thresholds].",
)
@option(
    "--confirm",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    group="model",
    help="A caption's tag must score above this share of its threshold; 0 adds all.",
)
@common.engine_run
def command(**options: Any) -> int:
    """Add tags and captions that the captions leave out.

    \b
      ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
      ramctl generate tagged.jsonl -o more.jsonl --captions 3 --decode nucleus:0.9
    """  # fmt: skip
    inputs = named_or_stdin(options["inputs"], "records (JSONL)")
    require_files(inputs)
    report = Report("generate", quiet=options["quiet"])
    source = read_inputs(inputs, options["root"], "generate")

    from ramctl.data_engine.baseline import Baseline
    from ramctl.data_engine.generate import GenerateOptions, run

    what = GenerateOptions(
        captions=options["n_captions"],
        decode=options["decode"],
        threshold=options["threshold"],
        confirm=options["confirm"],
        seed=options["seed"],
    )
    baseline = Baseline.load(
        options["model"], baseline_options(options), captioning=what.captions > 0
    )
    return run(baseline, what, source, stream_options(options, batch=baseline.batch), report)
