"""`ramctl convert`, `serve` and `doctor`: a model converted, served, and tried on this machine."""

import click

from ramctl.commands import options
from ramctl.commands.base import common, names_offered, option

MAY_BE_URL = click.Path(dir_okay=False)  # a string: it may be hf://owner/name:file


class Convert:
    """`ramctl convert`: checkpoints to bundles, bundles to ONNX."""

    TARGET = "ramctl.convert:ConvertOptions"
    EXTRA = "train"
    HELP = """
A name of `ramctl doctor --models` is downloaded, and converted into $RAMCTL_MODELS.
Nothing in a checkpoint is executed: a file that holds more than weights is refused.
hf://owner/name:file stands for any file, if the hub can be reached.
"""
    EXAMPLES = r"""
ramctl convert ram-plus
ramctl convert ram_swin_large_14m.pth --arch ram --out my-model
ramctl convert my-model --to onnx
ramctl convert my-model --to onnx --dtype int8 --calibrate train.jsonl
ramctl convert --info my-model
"""
    NOTES = """
Reads no records; --info writes its card to stdout.
Exit codes: 0 done; 1 failed; 2 wrong usage.
"""
    ARGUMENTS = [
        click.Argument(
            ["source"], metavar="NAME|CHECKPOINT|BUNDLE", shell_complete=names_offered("FILE")
        )
    ]
    OPTIONS = {
        "checkpoint": [
            common("--arch [ram|ram-plus|tag2text]", "Architecture of the checkpoint."),
            common("--tags FILE", "Word list or labels [default: the authors'].", type=MAY_BE_URL),
            common(
                "--thresholds FILE",
                "Numbers, or JSONL with tag, threshold [default: the authors', or 0.68].",
                type=MAY_BE_URL,
            ),
            option(
                "--vocab FILE",
                "Vocabulary of captions, a token per line [default: BERT's].",
                type=MAY_BE_URL,
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
                type=MAY_BE_URL,
            ),
            options.root,
        ],
        "output": [
            common("--out DIR", "Bundle to write [with --to onnx: BUNDLE itself]."),
            common("--info", "Print the card of a bundle; change nothing."),
        ],
        "run": [options.quiet, options.verbose],
    }


class Serve:
    """`ramctl serve`: a page to try a model on, and the same over HTTP."""

    ARGUMENTS: list[click.Argument] = []
    TARGET = "ramctl.serving.run:ServeOptions"
    HELP = """
The page takes a photo, and shows its tags, where they are, and a caption. POST /tag takes a
photo's bytes and answers with what tag writes. No file of this machine can be read through it.
"""
    EXAMPLES = """
ramctl serve
curl --data-binary @photo.jpg 'http://127.0.0.1:8000/tag?labels=cat,dog'
"""
    NOTES = """
POST /tag?threshold=0.5&top=9&labels=cat,dog&boxes=1&caption=1, all of them optional; a form with
several photos (curl -F 1=@a.jpg -F 2=@b.jpg) is answered with a list. GET /healthz says that it
is ready. An answer that is not 200 is {"code", "message"}: 400 wrong request, 403 from another
page, 408 sent too slowly, 413 too large, 422 no photo that can be read, 501 not with this model,
503 too busy.
Exit codes: 1 failed; 2 wrong usage; 130 interrupted, 143 terminated.
"""
    OPTIONS = {
        "address": [
            common("--host NAME", "Address to listen on.", default="127.0.0.1"),
            common(
                "--port N",
                "Port to listen on; 0: any free one.",
                type=click.IntRange(0, 65535),
                default=8000,
            ),
        ],
        "model": [options.model, options.labels],
        "limits": [
            common("--max-bytes N", "Refuse photos in larger files.", default=30_000_000),
            option("--max-pixels N", "Refuse larger photos.", default=100_000_000),
            option(
                "--max-seconds N",
                "Time limit for sending, decoding and tagging a photo.",
                default=30,
            ),
        ],
        "run": [options.device, options.dtype, options.threads, options.quiet, options.verbose],
    }


class Doctor:
    """`ramctl doctor`: what is installed and found."""

    ARGUMENTS: list[click.Argument] = []
    TARGET = "ramctl.doctor:DoctorOptions"
    HELP = """
Versions of packages; extras, and for each that is not installed the line that brings
it; devices; models that a bare name finds, and known ones to download.
"""
    EXAMPLES = """
ramctl doctor
ramctl doctor --models
ramctl doctor --json
"""
    NOTES = """
Reads no records; writes lines, or with --json one object, to stdout.
Exit codes: 0 done; 2 wrong usage.
"""
    OPTIONS = {
        "output": [
            common("--models", "Only list models: those here, and known ones to download."),
            common("--json", "Write one JSON object."),
        ],
        "run": [options.verbose],
    }
