"""The options that only `tag` has."""

from pathlib import Path

import click

from ramctl.commands.base import option
from ramctl.commands.options import combined
from ramctl.tagging.formats import FORMATS

_text = click.Path(exists=True, dir_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)

input_options = combined(
    option("-R", "--recursive", is_flag=True, group="input", help="Take the photos in folders."),
    option("-0", "--null", is_flag=True, group="input", help="Names on stdin end with NUL."),
    option(
        "--by-content", is_flag=True, group="input",
        help="Know photos by content on --resume, not by size and time.",
    ),
    option(
        "--max-pixels", type=click.IntRange(1), default=200_000_000, show_default=True,
        metavar="N", group="input", help="Reject larger photos.",
    ),
)  # fmt: skip

output_options = combined(
    option(
        "-f", "--format", "form", type=click.Choice(FORMATS), default="jsonl", metavar="FORMAT",
        group="output",
        help=", ".join(FORMATS) + ".",
    ),
    option("--dense", is_flag=True, group="output", help="Add the scores of all labels."),
    option("--boxes", is_flag=True, group="output", help="Add where the model looked."),
    option("--caption", is_flag=True, group="output", help="Add a caption by the model."),
    option("--gallery", type=_file, metavar="FILE", group="output", help="Write a page of photos."),
    option("--xmp", is_flag=True, group="output", help="Merge tags into XMP sidecars."),
    option(
        "--xmp-prefix", default="auto", show_default=True, metavar="WORD", group="output",
        help="Marks machine tags, as auto|dog.",
    ),
    option(
        "--xmp-name", type=click.Choice(["full", "stem"]), default="full", show_default=True,
        group="output", help="New sidecars: IMG.JPG.xmp or IMG.xmp.",
    ),
    option(
        "--xmp-remove", is_flag=True, group="output",
        help="Tag nothing; take machine tags out of XMP sidecars.",
    ),
    option("--txt", is_flag=True, group="output", help="Write tags to IMG.txt, for trainers."),
    option(
        "--txt-existing", type=click.Choice(["append", "replace", "keep"]), default="append",
        show_default=True, group="output", help="What happens to an IMG.txt that is there.",
    ),
    option("--dry-run", is_flag=True, group="output", help="Only say which sidecars would change."),
)  # fmt: skip

model_options = combined(
    option(
        "--labels", metavar="FILE", group="model",
        help="Words to look for; +FILE: besides the model's own.",
    ),
    option(
        "--threshold", metavar="NUMBER|FILE", group="model",
        help="Give tags above this [default: the model's].",
    ),
    option("--top", type=click.IntRange(1), metavar="N", group="model", help="N best of them."),
    option("--include", type=_text, metavar="FILE", group="model", help="Give only these tags."),
    option("--exclude", type=_text, metavar="FILE", group="model", help="Never give these tags."),
    option("--rename", type=_text, metavar="FILE", group="model", help="Lines of tag<TAB>name."),
    option("--leaf", is_flag=True, group="model", help="Not animal where dog is given."),
    option("--lang", metavar="CODE", group="model", help="Tags in this language, where known."),
    option(
        "--runtime", type=click.Choice(["auto", "onnx", "torch"]), default="auto",
        show_default=True, group="model", help="What runs the model.",
    ),
)  # fmt: skip

device = option(
    "--device", default="auto", show_default=True, metavar="DEVICE",
    help="auto, cpu, mps, cuda[:N] or cuda:0,1.",
)  # fmt: skip

run_options = combined(
    option(
        "-j", "--jobs", type=click.IntRange(1), metavar="N",
        help="Photos side by side [default: cores].",
    ),
    option("--lock", type=_file, metavar="FILE", help="Fail at once if another run holds it."),
)  # fmt: skip
