"""`ramctl clean`: removes wrong tags from records."""

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.data_engine.cleaning:CleanOptions"
EXTRA = "train"
HELP = """
A tag is removed if it is probably wrong, judged by the model's score of the photo and by
predictions learnt from the other records.
"""
EXAMPLES = """
ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
ramctl clean more.jsonl -o clean.jsonl --min-probability 0 --outliers 0.1
"""
NOTES = f"""
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
All records are read (onto disk) before the first is written; a stopped run starts again. Memory:
a few numbers a tag, and 5 x features x (features + labels). A person's tags are never removed; of
the removed things that captions name, 80 % are wrong if a sixth of all are, half if one in 25.
--outliers and --threshold are the paper's rules (outliers: the regions farthest from the tag's
clusters); to use only these, add --min-probability 0.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root],
    "model": [
        options.model,
        option(
            "--detector NAME",
            "Region detector: attention or grounding-dino:WEIGHTS.",
            default="attention",
        ),
    ],
    "cleaning": [
        option("--kinds KIND,...", "Kinds of tags to clean [default: all]."),
        option("--min-probability FRACTION", "Remove less probable tags [default: 0.2]."),
        option("--outliers FRACTION", "Remove this fraction of a tag's regions."),
        option("--threshold NUMBER|FILE", "Remove tags with region scores up to this."),
    ],
    "output": [options.output(), options.rejects, options.strict, options.stats],
    "run": [options.device, *options.engine_run, options.quiet],
}
