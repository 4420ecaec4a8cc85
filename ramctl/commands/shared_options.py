"""How an option is declared, and the parameters that several commands share."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ramctl.records.choices import KINDS

if TYPE_CHECKING:
    from ramctl.records.inputs import Shard


class OutputFile(click.Path):
    """A file that the command writes; it must not be one that the command reads."""


def read_shard(text: str) -> "Shard":
    """The shard that `I/N` names."""
    from ramctl.records.inputs import Shard  # not for every help

    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{text!r} is not a shard: 1/4, 2/4, 3/4 and 4/4 are all of four")
    return Shard(int(match[1]), int(match[2]))


def read_kinds(text: str) -> tuple[str, ...]:
    """Kinds of tags from a comma-separated list, from `all` or from `none`."""
    words = {"none": set(), "all": set(KINDS)}.get(text, set(text.split(",")))
    if unknown := words - set(KINDS):
        raise click.BadParameter(f"{min(unknown)!r} is not one of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in words)


OUTPUT = OutputFile(dir_okay=False, path_type=Path)
FILE_OR_FOLDER = click.Path(path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NAME = click.Path()  # a string, for which shells complete names of files

# Types by the name of the value in a help.
_TYPES: dict[str, Any] = {
    "FILE": click.Path(dir_okay=False, path_type=Path),
    "DIR": click.Path(file_okay=False, path_type=Path),
    **dict.fromkeys(
        ("BUNDLE", "PHOTO", "[+]FILE", "NAME|FILE", "NUMBER|FILE", "TAG,...|FILE"), NAME
    ),
    "N": click.IntRange(1),
    "P": click.FloatRange(0, 1, min_open=True, max_open=True),
    "FRACTION": click.FloatRange(0, 1),
    "I/N": read_shard,
    "KIND,...": read_kinds,
}


def option(spec: str, help: str, field: str | None = None, **attributes: Any) -> click.Option:
    """Declare an option the way its help shows it.

    `-o, --output FILE` takes a value, `--to [a|b]` one of these, `--dry-run` none. FILE, DIR, N
    (from 1) and the other names in `_TYPES` set the type too, unless `type` is given. The value
    fills the field of that name in the command's settings, or `field`. The other arguments are
    those of `click.Option`; with `envvar`, RAMCTL_<OPTION> and [common] do not set the option.
    """
    names, _, metavar = spec.replace(", ", ",").partition(" ")
    if metavar.endswith("]"):
        attributes["type"] = click.Choice(metavar[1:-1].split("|"))
    elif metavar:
        attributes = {"metavar": metavar, "type": _TYPES.get(metavar)} | attributes
    else:
        attributes["is_flag"] = True
    flags = names.split(",")
    return click.Option([*flags, field or key_of(flags[-1])], help=help, **attributes)


def key_of(flag: str) -> str:
    """The name of an option in the user's file and, in capitals, in variables."""
    return flag.removeprefix("--").replace("-", "_")


inputs = click.Argument(["inputs"], nargs=-1, metavar="[FILE]...", type=NAME)
root = option(
    "--root DIR",
    "Folder of relative photo names [default: the input's].",
    type=click.Path(file_okay=False),
)
shard = option("--shard I/N", "Process every N-th input, from the I-th.")
photos = [inputs, option("-R, --recursive", "Search folders for photos."), root]
model = option("--model BUNDLE", "A folder, hf://owner/name or known name.", default="mini")
labels = option("--labels [+]FILE", "Give only these words; +FILE: these as well.")

output = option(
    "-o, --output FILE",
    "Write to FILE [default: stdout].",
    type=OutputFile(path_type=Path),  # a folder with --ray
    callback=lambda context, parameter, path: None if path == Path("-") else path,
)
resume = option("--resume", "Continue an earlier -o FILE.")
rejects = option("--rejects FILE", "Write rejected inputs as JSONL (-: stderr).", type=OutputFile())
strict = option("--strict", "Fail at the first rejected input.")
stats = option("--stats FILE", "Write counts, seconds and versions as JSON.", type=OUTPUT)
stream = [output, resume, rejects]

jobs = option("-j, --jobs N", "Parallel workers [default: all cores].", field="workers")
device = option("--device DEVICE", "auto, cpu, mps or cuda[:N].", default="auto")
devices = option("--device DEVICE", "auto, cpu, mps, cuda:0, cuda:0,1 [default: auto].")
ray = option("--ray ADDRESS", "Process input files on a Ray cluster, into the folder -o.")
quiet = option("-q, --quiet", "Print only errors on stderr.")
