"""`ramctl generate` and `ramctl clean`: the data engine's two steps as filters."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option


class Generate:
    """`ramctl generate`: tags are added."""

    TARGET = "ramctl.data_engine.generate:GenerateOptions"
    EXTRA = "train"
    HELP = "Tags are only added; a tag that clean has removed is not added again."
    EXAMPLES = """
ramctl parse captions.jsonl | ramctl generate --model model/ > more.jsonl
ramctl generate tagged.jsonl -o more.jsonl --evidence scores:a.jsonl
"""
    NOTES = f"""
Reads image, tags, kinds, sources, removed; writes tags, kinds, scores, sources,
generated_captions, generated_caption_tags; with --evidence, chances. Streams; --evidence, which
may end in ,map=FILE as train --distill, reads all records first, into a temporary file.
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
                "Beam search or nucleus sampling of captions [default: the model's].",
            ),
            common("--threshold NUMBER|FILE", "Add tags above this score."),
            common(
                "--precision P",
                "Target precision of added tags, 0 to 1 [default: 0.8, if calibrated].",
            ),
            common(
                "--evidence scores:FILE",
                "Add chances of tags from another tagger or captions; repeatable.",
                multiple=True,
            ),
            option("--hard", "With --evidence: add the model's own tags too."),
        ],
        "output": options.stream,
        "run": [options.devices, *options.engine_run, options.ray, *options.messages],
    }


class Clean:
    """`ramctl clean`: tags are removed."""

    TARGET = "ramctl.data_engine.clean:CleanOptions"
    EXTRA = "train"
    HELP = """
A tag is removed where it is likely to be wrong: by the model's score of the photo, by
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
        ],
        "cleaning": [
            option("--kinds KIND,...", "Kinds of tags to clean [default: all]."),
            common(
                "--evidence scores:FILE", "Scores from another tagger; repeatable.", multiple=True
            ),
            common("--min-probability SHARE", "Remove tags that are less probable [default: 0.2]."),
            option("--outliers SHARE", "Fraction of a tag's regions to drop as outliers."),
            option("--threshold SCORE", "Remove tags whose region scores no more than this."),
            option(
                "--min-regions N",
                "Leave tags with fewer regions alone; of others keep the N most probable photos.",
                default=1,
            ),
            common(
                "--decisions FILE", "Decisions made on a --report page; repeatable.", multiple=True
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
            ),
        ],
        "run": [options.device, *options.engine_run, options.ray, *options.messages],
    }
