"""A known model (see doctor) is downloaded and converted into $RAMCTL_MODELS.
Nothing in a checkpoint is executed: a file that holds more than weights is refused.
Any file may be hf://owner/name:file.

Examples:
  ramctl convert ram-plus
  ramctl convert ram_swin_large_14m.pth --arch ram --out my-model
  ramctl convert my-model --to onnx
"""

import click

from ramctl.commands.options import NAME, option

TARGET = "ramctl.apps.conversion:ConvertOptions"
OPTIONS = {
    "Checkpoint": [
        click.Argument(["source"], metavar="NAME|CHECKPOINT|BUNDLE", type=NAME),
        option("--arch [ram|ram-plus|tag2text]", "Architecture of the checkpoint."),
        option("--tags FILE", "Word list or labels [default: the authors'].", type=NAME),
        option("--thresholds FILE", "Thresholds: numbers, or JSONL [default: 0.68].", type=NAME),
        option("--vocab FILE", "Tokens of captions, one a line [default: BERT's].", type=NAME),
        option(
            "--text-encoder DIR", "CLIP that embeds new words [default: the authors'].", type=NAME
        ),
    ],
    "Graph": [
        option("--to [onnx]", "Add photo.onnx and labels.onnx to a bundle.", field="target"),
    ],
    "Output": [option("--out DIR", "Bundle to write [--to onnx: BUNDLE].")],
}
