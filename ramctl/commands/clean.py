"""ramctl clean: the data engine's cleaning as a filter."""

from pathlib import Path
from typing import Any

import click

from ramctl.commands import options as common
from ramctl.commands.base import RamctlCommand, option
from ramctl.commands.options import baseline_options, stream_options
from ramctl.records.record import KINDS, SOURCES

EPILOG = """
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
Buffers: regions go to disk, records come out after the last one was read.
Exit codes: 0 all done, 1 failed, 2 wrong usage, 3 some inputs rejected, 130 interrupted.
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


@click.command("clean", cls=RamctlCommand, epilog=EPILOG)
@common.inputs
@common.root
@common.stream
@option(
    "--report",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    group="output",
    help="Write a page that shows removed and kept regions, tag by tag.",
)
@common.model
@option(
    "--detector",
    default="attention",
    show_default=True,
    group="model",
    metavar="attention|grounding-dino:WEIGHTS",
    help="What finds a tag's region.",
)
@option(
    "--embed",
    type=click.Choice(["pool", "crop"]),
    group="model",
    help="Region features: pooled tokens, or the crop encoded [default: fits the detector].",
)
@option(
    "--kinds",
    type=Words(KINDS),
    default="object,scene",
    show_default=True,
    metavar="KIND,...",
    help="Kinds of tags that are cleaned.",
)
@option("--only", metavar="FILE|top:K", help="Clean only these tags, or the K most frequent.")
@option(
    "--outliers",
    type=click.FloatRange(0, 1),
    default=0.10,
    show_default=True,
    metavar="SHARE",
    help="Share of each tag's regions that is dropped as outlying.",
)
@option(
    "--clusters",
    type=click.IntRange(1, 255),
    metavar="N",
    help="Clusters a tag [default: one for 50 regions, 8 at most].",
)
@option(
    "--min-regions",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="Leave a tag with fewer regions alone.",
)
@option(
    "--threshold",
    default="deviations:1",
    show_default=True,
    metavar="deviations:N|mean:SHARE|lowest:SHARE|NUMBER|FILE",
    help="A region must score higher to keep its tag: N deviations under the tag's mean logit.",
)
@option(
    "--protect",
    type=Words(SOURCES),
    default="human",
    show_default=True,
    metavar="SOURCE,...|none",
    help="Never remove tags from these sources.",
)
@option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep regions and decisions here, and go on from what is there.",
)
@option(
    "--stage",
    type=click.Choice(["detect", "cluster", "apply"]),
    help="Run one stage on --work; cluster and apply read nothing else.",
)
@option(
    "--part",
    type=Part(),
    default="0/1",
    metavar="I/N",
    help="Do the I-th of N shares of detect or cluster; any N gives the same result.",
)
@common.engine_run
def command(**options: Any) -> int:
    """Remove wrong tags by regions, clusters and the model's own opinion.

    \b
      ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
      ramctl clean tagged.jsonl -o clean.jsonl --report removed.html --outliers 0.05
    """  # fmt: skip
    from ramctl.data_engine.clean import CleanOptions, run
    from ramctl.data_engine.cluster import ClusterSettings

    clustering = ClusterSettings(options["outliers"], options["clusters"], options["seed"])
    settings = CleanOptions(
        inputs=options["inputs"],
        root=options["root"],
        page=options["page"],
        work=options["work"],
        stage=options["stage"],
        stream=stream_options(options, batch=256),
        quiet=options["quiet"],
        model=options["model"],
        detector=options["detector"],
        embed=options["embed"],
        kinds=frozenset(options["kinds"]),
        only=options["only"],
        threshold=options["threshold"],
        clustering=clustering,
        min_regions=options["min_regions"],
        protect=options["protect"],
        part=options["part"],
        baseline=baseline_options(options),
    )
    return run(settings).exit_code
