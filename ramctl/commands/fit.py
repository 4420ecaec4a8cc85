"""`ramctl fit`: a tagger of one's own collection."""

from ramctl.commands import options
from ramctl.commands.options import option

TARGET = "ramctl.training.fit:FitOptions"
HELP = """
Fits labels to 20 to 5,000 photos with parsed captions, keywords or corrections, in minutes.
Things that five captions name become labels. Photos of other kinds are tagged as before.
"""
EXAMPLES = """
ramctl parse captions.jsonl | ramctl fit --out mine
ramctl import -R photos | ramctl fit --out mine
"""
NOTES = f"""
Reads image, tags, kinds, captions, caption_tags, confirmed, refused. Writes a bundle to OUT; a
stopped run starts again.
{options.EXIT_CODES}
"""
OPTIONS = {
    "input": [options.root],
    "model": [
        options.model,
        option("--labels FILE", "Words that become labels [default: things in captions]."),
    ],
    "output": [
        option("--out DIR", "Bundle to write.", default="fitted"),
        options.rejects,
        options.strict,
        options.stats,
    ],
    "run": [options.jobs("all cores"), options.device, options.quiet],
}
