"""`ramctl convert`: the authors' checkpoints to bundles, bundles to ONNX, cards of bundles."""

import sys
from dataclasses import replace
from pathlib import Path

import click

from ramctl.commands.base import RamctlCommand, option
from ramctl.commands.options import quiet, root, verbose
from ramctl.errors import UsageProblem
from ramctl.records.report import Report

HELP = """\
Turn the authors' checkpoints into bundles, and bundles into ONNX.

Nothing in a checkpoint is executed: a file that holds more than weights is refused.
hf://owner/name:file stands for any file, where a hub can be reached.

Examples:
  ramctl convert ram_swin_large_14m.pth --arch ram --tags ram_tag_list.txt \\
      --thresholds ram_tag_list_threshold.txt --translations ram_tag_list_chinese.txt --out ram
  ramctl convert ram --to onnx
  ramctl convert my-model --to onnx --dtype int8 --calibrate train.jsonl --val dev.jsonl
  ramctl convert --info ram
"""
EPILOG = """\
Reads no records; --info writes its card to stdout.
Exit codes: 0 done; 1 failed; 2 wrong usage.
"""
FILE = click.Path(dir_okay=False)


@click.command(cls=RamctlCommand, name="convert", help=HELP, epilog=EPILOG)
@click.argument("source", metavar="CHECKPOINT|BUNDLE")
@option(
    "--arch", type=click.Choice(["ram", "ram-plus", "tag2text"]), group="input",
    help="What the checkpoint is.",
)  # fmt: skip
@option("--tags", type=FILE, metavar="FILE", group="input", help="The tag list, one a line.")
@option(
    "--thresholds", type=FILE, metavar="FILE", group="input",
    help="Thresholds: a number a line, or JSONL with tag and threshold [default: 0.68].",
)  # fmt: skip
@option(
    "--vocab", type=FILE, metavar="FILE", group="input",
    help="BERT's word pieces, one a line; without it the bundle writes no captions.",
)  # fmt: skip
@option(
    "--translations", type=FILE, metavar="FILE", group="input",
    help="Chinese names in the tag list's order, for tag --lang zh.",
)  # fmt: skip
@option(
    "--text-encoder", metavar="DIR|hf://...", group="input",
    help="CLIP model that embeds new words [default: hf://openai/clip-vit-base-patch16].",
)  # fmt: skip
@option(
    "--calibrate", metavar="PHOTOS", group="input",
    help="Training photos (folder, *.tar, JSONL) that give int8 its ranges.",
)  # fmt: skip
@option(
    "--val", type=FILE, metavar="FILE", group="input",
    help="Records with tags: int8's thresholds, and whether it becomes the default.",
)  # fmt: skip
@root
@option(
    "--out", type=click.Path(file_okay=False), metavar="DIR", group="output",
    help="The bundle to write [with --to onnx: the bundle itself].",
)  # fmt: skip
@option(
    "--to", "target", type=click.Choice(["onnx"]), group="output",
    help="Add the tagging graph model.onnx to a bundle (extra [onnx]).",
)  # fmt: skip
@option(
    "--dtype", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
    group="output", help="With --to onnx; int8 adds model.int8.onnx.",
)  # fmt: skip
@option("--info", is_flag=True, group="output", help="Print a bundle's card and change nothing.")
@quiet
@verbose
def command(
    source: str,
    arch: str | None,
    tags: str | None,
    thresholds: str | None,
    vocab: str | None,
    translations: str | None,
    text_encoder: str | None,
    out: str | None,
    target: str | None,
    dtype: str,
    calibrate: str | None,
    val: str | None,
    root: str | None,
    info: bool,
    quiet: bool,
    verbose: int,
) -> None:
    report = Report("convert", quiet=quiet)
    if dtype != "int8" and (calibrate or val):
        raise UsageProblem("--calibrate and --val go with --to onnx --dtype int8")
    if info:
        _show(source)
    elif dtype == "int8":
        if target is None or calibrate is None:
            raise UsageProblem("--dtype int8 needs --to onnx and --calibrate PHOTOS")
        _add_int8_graph(source, out, (calibrate, val, root), report)
    elif target is not None:
        _add_graph(source, out, report)
    else:
        missing = [
            name
            for name, value in (("--arch", arch), ("--tags", tags), ("--out", out))
            if value is None
        ]
        if missing:
            raise UsageProblem(
                f"a checkpoint needs {', '.join(missing)}; a bundle --to onnx or --info"
            )
        files = (source, tags, thresholds, vocab, translations)
        _convert(arch, files, text_encoder, Path(out or ""), report)


def _show(source: str) -> None:
    from ramctl.checkpoints.bundle import Bundle, resolve_model
    from ramctl.checkpoints.convert import describe_bundle

    bundle = Bundle.open(resolve_model(source), verify=True)
    click.echo("\n".join(describe_bundle(bundle)))


def _add_graph(source: str, out: str | None, report: Report) -> None:
    from ramctl.checkpoints.bundle import GRAPH, Bundle, resolve_model
    from ramctl.checkpoints.convert import add_graph

    bundle = add_graph(Bundle.open(resolve_model(source)), None if out is None else Path(out))
    size = bundle.file_sizes[GRAPH] / 1e6
    report.say(f"{bundle.path}: model.onnx written ({size:.1f} MB beside the shared weights)")


def _add_int8_graph(
    source: str, out: str | None, data: tuple[str, str | None, str | None], report: Report
) -> None:
    from ramctl.checkpoints.bundle import INT8_GRAPH, Bundle, resolve_model
    from ramctl.training.quantise import MOST_LOST, add_int8_graph

    opened = Bundle.open(resolve_model(source))
    bundle, verdict = add_int8_graph(opened, *data, None if out is None else Path(out))
    size = bundle.file_sizes[INT8_GRAPH] / 1e6
    report.say(f"{bundle.path}: {INT8_GRAPH} written ({size:.1f} MB beside the shared weights)")
    if verdict is not None:
        report.say(
            f"mAP on {verdict.photos} photos: fp32 {verdict.fp32:.4f}, int8 {verdict.int8:.4f}; "
            f"the default is {bundle.dtype} (int8 may lose less than {MOST_LOST})"
        )


def _convert(
    arch: str | None,
    files: tuple[str | None, ...],
    text_encoder: str | None,
    out: Path,
    report: Report,
) -> None:
    from ramctl.checkpoints.bundle import TOKENIZER
    from ramctl.checkpoints.convert import Checkpoint, convert_checkpoint
    from ramctl.pretrained.hub import local_path

    weights, tags, *others = [None if name is None else local_path(name) for name in files]
    checkpoint = Checkpoint(weights, arch, tags, *others)  # type: ignore[arg-type]
    if text_encoder is not None:
        checkpoint = replace(checkpoint, text_encoder=text_encoder)
    bundle = convert_checkpoint(checkpoint, out, ["ramctl", *sys.argv[1:]])
    report.say(f"{out}: {len(bundle.labels)} labels, {bundle.preset.model.encoder.backbone}")
    if bundle.preset.model.captioning and not bundle.has(TOKENIZER):
        report.say("no --vocab was given, so this bundle writes no captions")
