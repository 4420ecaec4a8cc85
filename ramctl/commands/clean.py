"""`ramctl clean`: the data engine's cleaning as a filter."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.records.record import KINDS

TARGET = "ramctl.data_engine.clean:CleanOptions"
EXTRA = "train"
HELP = """
A tag is removed where it is likely to be wrong: by the model's score of its region, by
predictions learnt from the other records, and by what other taggers said of the photo.
"""
EXAMPLES = """
ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
ramctl clean more.jsonl -o clean.jsonl --report page.html --evidence scores:a.jsonl
ramctl clean more.jsonl -o clean.jsonl --decisions decisions.jsonl
"""
NOTES = f"""
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
Buffers on disk: records come out after the last one has been read. In memory: three
numbers per tag, and 5 x (features x (features + labels)) for the predictions.
A person's tags are never removed. What a caption names goes only where two independent
kinds of evidence are against it. --outliers and --threshold are the paper's rules, used
in place of the estimate; they remove what captions name as well.
{options.EXIT_CODES}
"""


OPTIONS = {
    "input": [options.root],
    "model": [
        options.model,
        option(
            "--detector attention|grounding-dino:WEIGHTS",
            "What finds the region of a tag.",
            default="attention",
        ),
        option(
            "--embed [pool|crop]",
            "Region features: pooled tokens, or the encoded crop [default: fits the detector].",
        ),
    ],
    "cleaning": [
        option(
            "--kinds KIND,...",
            "Kinds of tags to clean.",
            type=options.words_of(KINDS),
            default="object,scene",
        ),
        option("--only FILE|top:K", "Only these tags, or the K most frequent."),
        common(
            "--evidence scores:FILE",
            "Scores from another tagger; repeatable.",
            multiple=True,
        ),
        common(
            "--min-probability P",
            "Remove tags that are less probable [default: 0.2].",
            type=click.FloatRange(0, 1),
        ),
        option("--outliers SHARE", "Fraction of a tag's regions to drop as outliers."),
        option(
            "--threshold SCORE",
            "Remove tags whose region scores no more than this.",
            type=click.FloatRange(0, 1),
        ),
        option(
            "--clusters N",
            "Clusters per tag [default: one per 50 regions, at most 8].",
            type=click.IntRange(1, 255),
        ),
        option(
            "--min-regions N",
            "Leave tags with fewer regions alone; of others keep the N most probable photos.",
            default=5,
        ),
        common(
            "--decisions FILE",
            "Decisions made on a --report page; repeatable.",
            multiple=True,
        ),
    ],
    "output": [
        *options.stream,
        common(
            "--report FILE",
            "Write a page to judge removed and added tags.",
            field="page",
            writes=True,
        ),
    ],
    "stages": [
        common("--work DIR", "Keep regions and decisions; continue from them."),
        option(
            "--stage [detect|cluster|apply]",
            "Run one stage on --work; cluster and apply read nothing else.",
        ),
        option(
            "--shard I/N",
            "Do the I-th of N parts of --stage detect; any N gives the same result.",
            type=options.read_shard,
            default="1/1",
            show_default=False,
        ),
    ],
    "run": [*options.engine_run, options.ray, *options.messages],
}
