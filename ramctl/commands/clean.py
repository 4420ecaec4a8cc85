"""`ramctl clean`: the data engine's cleaning as a filter."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.records.record import KINDS, SOURCES

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
--outliers and --threshold take the place of --least-chance, unless that is given too.
{options.EXIT_CODES}
"""


def read_protected(text: str) -> tuple[str, ...]:
    """Reads sources, some with a number of kinds of evidence; `none` and `all` for the extremes."""
    parts = {"none": (), "all": SOURCES}.get(text, tuple(text.split(",")))
    for part in parts:
        source, colon, number = part.partition(":")
        if source not in SOURCES:
            raise click.BadParameter(f"{source!r} is not one of {', '.join(SOURCES)}")
        if colon and not (number.isdecimal() and int(number) > 0):
            raise click.BadParameter(f"{part!r}: expected {source}:N, as parsed:2")
    return parts


OPTIONS = {
    "input": [options.root, options.max_line],
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
            "--least-chance SHARE",
            "Minimum probability of being right [default: 0.2].",
        ),
        option("--outliers SHARE", "Fraction of a tag's regions to drop as outliers."),
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
        option(
            "--threshold deviations:N|NUMBER|FILE",
            "Score that a region must exceed for its tag to stay; deviations:N is N standard "
            "deviations below the mean logit of the tag's regions.",
        ),
        common(
            "--protect SOURCE[:N],...|none",
            "Keep tags from these sources; with :N, unless N independent kinds of evidence "
            "contradict them.",
            type=read_protected,
            default="human,parsed:2",
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
            "Do the I-th of N parts of detect or cluster; any N gives the same result.",
            type=options.read_shard,
            default="1/1",
            show_default=False,
        ),
    ],
    "run": [*options.engine_run, options.ray, *options.messages],
}
