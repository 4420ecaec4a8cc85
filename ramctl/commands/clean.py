"""`ramctl clean`: removes wrong tags from records."""

from ramctl.commands import options
from ramctl.commands.options import common, option

TARGET = "ramctl.data_engine.cleaning:CleanOptions"
EXTRA = "train"
HELP = """
A tag is removed if it is probably wrong: by the model's score of the photo, by predictions
learnt from the other records, and by other taggers' scores (--evidence).
"""
EXAMPLES = """
ramctl generate tagged.jsonl | ramctl clean > clean.jsonl
ramctl clean more.jsonl -o clean.jsonl --review page.html --evidence a.jsonl
ramctl clean more.jsonl -o clean.jsonl --decisions decisions.jsonl
"""
NOTES = f"""
Reads image, tags, kinds, sources; writes tags, kinds, scores, sources, removed.
Buffers on disk: records come out after the last one has been read. In memory: three numbers a
tag, and 5 x (features x (features + labels)). A person's tags are never removed; by
--min-probability a caption's only if two kinds of evidence are against it. --outliers and
--threshold are the paper's rules; with --min-probability 0 they alone decide.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root],
    "model": [
        options.model,
        option(
            "--detector NAME",
            "attention or grounding-dino:WEIGHTS; finds regions.",
            default="attention",
        ),
    ],
    "cleaning": [
        option("--kinds KIND,...", "Kinds of tags to clean [default: all]."),
        common("--evidence FILE", "Scores of another tagger; repeatable.", multiple=True),
        common("--min-probability FRACTION", "Remove less probable tags [default: 0.2]."),
        option("--outliers FRACTION", "Fraction of a tag's regions to drop as outliers."),
        option("--threshold FRACTION", "Remove tags whose region scores no more than this."),
        option(
            "--min-regions N",
            "Keep tags with fewer regions; of others N photos.",
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
        common("--work DIR", "Keep regions and decisions; continue from them."),
        option("--stage [detect|cluster|apply]", "Run one stage on --work."),
        option("--shard I/N", "Do part I of N of --stage detect."),
    ],
    "run": [options.device, *options.engine_run, *options.messages],
}
