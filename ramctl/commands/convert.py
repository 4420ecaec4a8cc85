"""`ramctl convert`: the authors' checkpoints to bundles, bundles to ONNX, cards of bundles."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, option
from ramctl.commands.completion import names_offered

TARGET = "ramctl.convert:ConvertOptions"
EXTRA = "train"
HELP = """
Nothing in a checkpoint is executed: a file that holds more than weights is refused.
hf://owner/name:file stands for any file, if the hub can be reached.
"""
EXAMPLES = r"""
ramctl convert ram_swin_large_14m.pth --arch ram --tags ram_tag_list.txt --out ram
ramctl convert ram --to onnx
ramctl convert my-model --to onnx --dtype int8 --calibrate train.jsonl
ramctl convert --info ram
"""
NOTES = """
Reads no records; --info writes its card to stdout.
Exit codes: 0 done; 1 failed; 2 wrong usage.
"""
NAME = click.Path(dir_okay=False)  # a string: it may be hf://owner/name:file
ARGUMENTS = [
    click.Argument(
        ["source"], metavar="CHECKPOINT|BUNDLE", shell_complete=names_offered("CHECKPOINT")
    )
]
OPTIONS = {
    "checkpoint": [
        common("--arch [ram|ram-plus|tag2text]", "Architecture of the checkpoint."),
        common("--tags FILE", "Tag list, one tag per line.", type=NAME),
        common(
            "--thresholds FILE", "Numbers, or JSONL with tag, threshold [default: 0.68].", type=NAME
        ),
        option(
            "--vocab FILE", "Vocabulary of captions, a token per line [default: BERT's].", type=NAME
        ),
        option(
            "--translations FILE",
            "Chinese names in the order of the tag list, for tag --lang zh.",
            type=NAME,
        ),
        option(
            "--text-encoder DIR|hf://...",
            "CLIP model that embeds new words [default: hf://openai/clip-vit-base-patch16].",
        ),
    ],
    "graph": [
        common("--to [onnx]", "Add model.onnx to a bundle.", field="target"),
        common(
            "--dtype [fp32|int8]",
            "Number format of the graph; int8: model.int8.onnx.",
            default="fp32",
        ),
        common("--calibrate PHOTOS", "Training photos (folder, tar, JSONL) for int8's ranges."),
        common(
            "--val FILE",
            "Records with tags: they set int8's thresholds, and whether it is the default.",
            type=NAME,
        ),
        options.root,
    ],
    "output": [
        common("--out DIR", "Bundle to write [with --to onnx: BUNDLE itself]."),
        common("--info", "Print the card of a bundle; change nothing."),
    ],
    "run": [options.quiet, options.verbose],
}
