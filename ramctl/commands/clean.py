"""`ramctl clean`: removes wrong tags from records."""

from ramctl.commands import options
from ramctl.commands.options import common, option

TARGET = "ramctl.data_engine.cleaning:CleanOptions"
EXTRA = "train"
HELP = """
A tag is removed if it is probably wrong, judged by the model's score of the photo, by
predictions learnt from the other records, and by other taggers' scores (--evidence).
"""
EXAMPLES = """
ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
ramctl clean more.jsonl -o clean.jsonl --review page.html --evidence a.jsonl
ramctl clean more.jsonl -o clean.jsonl --decisions decisions.jsonl
"""
NOTES = f"""
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
All records are read (onto disk) before the first is written. Memory: three numbers a tag, and
5 x features x (features + labels). A person's tags are never removed; of the removed things that
captions name, 80 % are wrong if a sixth of all are, half if one in 25. --outliers and --threshold
are the paper's rules (outliers: the regions farthest from the tag's clusters); to use only these,
add --min-probability 0.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root],
    "model": [
        common(
            "--model BUNDLE",
            "A folder, hf://owner/name or known name [default: mini; --stage: that of --work].",
        ),
        option(
            "--detector NAME",
            "Region detector: attention or grounding-dino:WEIGHTS.",
            default="attention",
        ),
    ],
    "cleaning": [
        option("--kinds KIND,...", "Kinds of tags to clean [default: all]."),
        common("--evidence FILE", "Scores of another tagger; repeatable.", multiple=True),
        common("--min-probability FRACTION", "Remove less probable tags [default: 0.2]."),
        option("--outliers FRACTION", "Remove this fraction of a tag's regions."),
        option("--threshold NUMBER|FILE", "Remove tags with region scores up to this."),
        option(
            "--min-regions N",
            "Leave tags with fewer regions alone.",
            default=1,
        ),
        common("--decisions FILE", "Decisions from a --review page; repeatable.", multiple=True),
    ],
    "output": [
        *options.stream,
        common(
            "--review FILE",
            "Write a page to judge removed and added tags.",
            field="page",
            writes=True,
        ),
    ],
    "stages": [
        common("--work DIR", "Folder that keeps regions, for --stage."),
        option("--stage [detect|cluster|apply]", "Run one stage on --work."),
        option("--shard I/N", "Do part I of N of --stage detect."),
    ],
    "run": [options.device, *options.engine_run, *options.messages],
}
