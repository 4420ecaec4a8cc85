"""`ramctl convert`: checkpoints to bundles, bundles to ONNX."""

import click

from ramctl.commands import options
from ramctl.commands.options import option, path_completer

MAY_BE_URL = click.Path(dir_okay=False)  # a string: it may be hf://owner/name:file

TARGET = "ramctl.apps.conversion:ConvertOptions"
EXTRA = "train"
HELP = """
A known model (see doctor) is downloaded and converted into $RAMCTL_MODELS.
Nothing in a checkpoint is executed: a file that holds more than weights is refused.
Any file may be hf://owner/name:file.
"""
EXAMPLES = r"""
ramctl convert ram-plus
ramctl convert ram_swin_large_14m.pth --arch ram --out my-model
ramctl convert my-model --to onnx
"""
NOTES = """
Reads no records.
Exit codes: 0 done; 1 failed; 2 wrong usage.
"""
ARGUMENTS = [
    click.Argument(
        ["source"], metavar="NAME|CHECKPOINT|BUNDLE", shell_complete=path_completer("FILE")
    )
]
OPTIONS = {
    "checkpoint": [
        option("--arch [ram|ram-plus|tag2text]", "Architecture of the checkpoint."),
        option("--tags FILE", "Word list or labels [default: the authors'].", type=MAY_BE_URL),
        option(
            "--thresholds FILE",
            "Thresholds: numbers, or JSONL [default: 0.68].",
            type=MAY_BE_URL,
        ),
        option(
            "--vocab FILE",
            "Tokens of captions, one a line [default: BERT's].",
            type=MAY_BE_URL,
        ),
        option(
            "--text-encoder DIR",
            "CLIP that embeds new words [default: the authors'].",
            type=str,  # may be hf://...
        ),
    ],
    "graph": [
        option("--to [onnx]", "Add photo.onnx and labels.onnx to a bundle.", field="target"),
    ],
    "output": [
        option("--out DIR", "Bundle to write [--to onnx: BUNDLE]."),
    ],
    "run": [options.quiet],
}
