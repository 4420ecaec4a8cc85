"""`ramctl clean`: the data engine's cleaning as a filter."""

from typing import Any

import click

from ramctl.commands import options
from ramctl.commands.base import RamctlCommand, filled, option
from ramctl.records.record import KINDS, SOURCES

HELP = """
A tag is removed where its region is an outlier among the regions of that tag, or where
the model scores its region too low.
"""
EXAMPLES = """
ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
ramctl clean tagged.jsonl -o clean.jsonl --report removed.html --outliers 0.05
"""
NOTES = f"""
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
Buffers on disk: records come out after the last one has been read.
{options.EXIT_CODES}
"""


class Part(click.ParamType):  # type: ignore[type-arg]
    """`I/N`, the I-th of N parts."""

    name = "part"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """(I, N)."""
        if isinstance(value, tuple):
            return value
        index, slash, number = str(value).partition("/")
        if not (slash and index.isdecimal() and number.isdecimal() and int(index) < int(number)):
            self.fail(f"{value!r} is not a part such as 0/4", param, ctx)
        return int(index), int(number)


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words of a fixed list, separated by commas; `none` and `all` for the extremes."""

    name = "words"

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The words in the list's order."""
        if isinstance(value, tuple):
            return value
        words = {"none": set(), "all": set(self.known)}.get(value, set(str(value).split(",")))
        unknown = words - set(self.known)
        if unknown:
            self.fail(f"{min(unknown)!r} is not one of {', '.join(self.known)}", param, ctx)
        return tuple(word for word in self.known if word in words)


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
            type=Words(KINDS),
            default="object,scene",
            common=True,
        ),
        option("--only FILE|top:K", "Only these tags, or the K most frequent.", common=True),
        option(
            "--outliers SHARE",
            "Share of a tag's regions to drop as outliers.",
            default=0.10,
            common=True,
        ),
        option(
            "--clusters N",
            "Clusters per tag [default: one per 50 regions, at most 8].",
            type=click.IntRange(1, 255),
        ),
        option("--min-regions N", "Leave tags with fewer regions alone.", default=5),
        option(
            "--threshold deviations:N|mean:SHARE|lowest:SHARE|NUMBER|FILE",
            "Score that a region must exceed for its tag to stay; deviations:N is N standard "
            "deviations below the mean logit of the tag's regions.",
            default="deviations:1",
        ),
        option(
            "--protect SOURCE,...|none",
            "Never remove tags from these sources.",
            type=Words(SOURCES),
            default="human",
            common=True,
        ),
    ],
    "output": [
        *options.stream,
        option(
            "--report FILE", "Write a page of removed and kept regions.", name="page", common=True
        ),
    ],
    "stages": [
        option("--work DIR", "Keep regions and decisions; continue from them.", common=True),
        option(
            "--stage [detect|cluster|apply]",
            "Run one stage on --work; cluster and apply read nothing else.",
        ),
        option(
            "--part I/N",
            "Do the I-th of N shares of detect or cluster; any N gives the same result.",
            type=Part(),
            default="0/1",
        ),
    ],
    "run": [*options.engine_run, *options.messages],
}


def call(**values: Any) -> int:
    from ramctl.data_engine.clean import CleanOptions, run

    return run(filled(CleanOptions, values)).exit_code


command = RamctlCommand(
    "clean", call, options.inputs, OPTIONS, help=HELP, examples=EXAMPLES, notes=NOTES
)
