"""How an option is declared, and the options that several commands share."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, FishComplete, add_completion_class

from ramctl.records.record import KINDS
from ramctl.records.shards import Shard


def read_shard(text: str) -> Shard:
    """The shard that `I/N` names."""
    if (match := re.fullmatch(r"([0-9]+)/([0-9]+)", text)) is None:
        raise click.BadParameter(f"{text!r} is not a shard such as 1/4")
    index, number = match.groups()
    if not 1 <= int(index) <= int(number):
        raise click.BadParameter(
            f"{text!r} is not a shard: they are 1/{number} to {number}/{number}"
        )
    return Shard(int(index), int(number))


def read_kinds(text: str) -> tuple[str, ...]:
    """Kinds of tags from a comma-separated list, from `all` or from `none`."""
    words = {"none": set(), "all": set(KINDS)}.get(text, set(text.split(",")))
    if unknown := words - set(KINDS):
        raise click.BadParameter(f"{min(unknown)!r} is not one of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in words)


class Fraction(click.FloatRange):
    """A number from 0 to 1; click's range lets `nan` pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; click's error for any other value."""
        number = super().convert(value, param, ctx)
        if number != number:
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


# Types by the name of the value in a help.
_TYPES: "dict[str, click.ParamType[Any] | Callable[[str], Any]]" = {  # click 8.2 has no generics
    "FILE": click.Path(dir_okay=False, path_type=Path),
    "DIR": click.Path(file_okay=False, path_type=Path),
    "N": click.IntRange(1),
    "P": Fraction(0, 1, min_open=True, max_open=True),
    "FRACTION": Fraction(0, 1),
    "I/N": read_shard,
    "KIND,...": read_kinds,
}

# The kind of completion that shells offer, by a word in the name of the value.
_COMPLETIONS = {"FILE": "file", "PHOTOS": "file", "DIR": "dir", "BUNDLE": "dir"}
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[Any]]"]


def path_completer(metavar: str) -> Completer | None:
    """The completion of a value that is a file or folder, by its name in the help; else None."""
    kind = next((kind for word, kind in _COMPLETIONS.items() if word in metavar), None)
    if kind is None:
        return None
    return lambda ctx, parameter, incomplete: [CompletionItem(incomplete, type=kind)]


@add_completion_class
class Fish(FishComplete):
    """click's completion for fish, with descriptions whole: click cuts them at a comma."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


class Option(click.Option):
    """A click option that knows what it fills in and whether it writes."""

    def __init__(
        self,
        *args: Any,
        writes: bool = False,
        inherits: bool = True,
        field: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.writes = writes  # its value is a file that the command replaces
        self.inherits = inherits  # [common] and RAMCTL_<OPTION> set it too
        self.field = field  # the field of the command's dataclass; None: the option's name

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Click's additions to a help text without ranges, which the error message names."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def option(spec: str, help: str, **attributes: Any) -> Option:
    """Declare an option the way its help shows it.

    `-o, --output FILE` takes a value, `--to [a|b]` one of these, `--dry-run` none. FILE, DIR, N
    (from 1) and the other names in `_TYPES` set the type too, unless `type` is given. The long name
    is also the key in the user's file and the variable. Other arguments are those of `Option`.
    """
    names, _, metavar = spec.replace(", ", ",").partition(" ")
    if completer := path_completer(metavar):
        attributes.setdefault("shell_complete", completer)
    if metavar.startswith("[") and metavar.endswith("]"):
        attributes["type"] = click.Choice(metavar[1:-1].split("|"))
    elif metavar:
        attributes = {"metavar": metavar, "type": _TYPES.get(metavar)} | attributes
    else:
        attributes["is_flag"] = True
    attributes.setdefault("show_default", "default" in attributes)
    *_, last = declarations = names.split(",")
    parameter = last.lstrip("-").replace("-", "_")
    return Option([*declarations, parameter], help=help, **attributes)


def read_labels(name: str) -> Any:
    """The label system in a file or bundle."""
    from ramctl.checkpoints.bundle import read_labels  # which takes a while

    return read_labels(name)


FILE_OR_FOLDER = click.Path(path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXIT_CODES = "Exit codes: 0 done; 1 failed; 2 wrong usage; 3 some inputs rejected."

shard = option("--shard I/N", "Process every N-th input, from the I-th.")
root = option(
    "--root DIR",
    "Folder of relative photo names [default: the input's].",
    type=click.Path(file_okay=False),
)
photos = [
    option("-R, --recursive", "Search folders for photos."),
    option("-0, --null", "Names on stdin end with NUL."),
    root,
]
model = option("--model BUNDLE", "A folder, hf://owner/name or known name.", default="mini")
labels = option("--labels [+]FILE", "Give only these words; +FILE adds them to the labels.")


def jobs(default: str, **attributes: Any) -> Option:
    """`-j`, with the command's default number of workers."""
    text = f"Parallel workers [default: {default}]."
    return option("-j, --jobs N", text, field="workers", **attributes)


def source_format(known: Sequence[str]) -> Option:
    """`--from`, for a command that recognises the format of its input."""
    return option(
        "--from FORMAT", f"{', '.join(known)} [default: recognised].",
        field="source_format", type=click.Choice(known),
    )  # fmt: skip


rejects = option(
    "--rejects FILE", "Write rejected inputs as JSONL (-: stderr).", type=str, writes=True
)
strict = option("--strict", "Fail at the first rejected input.")
stats = option("--stats FILE", "Write counts, seconds and versions as JSON.", writes=True)
output = partial(
    option, "-o, --output FILE", "Write to FILE [default: stdout].", writes=True,
    callback=lambda ctx, parameter, path: None if path == Path("-") else path,
)  # fmt: skip
stream = [
    output(type=FILE_OR_FOLDER),  # a folder with --ray
    option("--resume", "Continue an earlier -o FILE."),
    rejects,
    strict,
    stats,
]

ray = option("--ray ADDRESS", "Process input files on a Ray cluster, into the folder -o.")
batch = option("-b, --batch N", "Records a batch [default: set by the command].")
device = option("--device DEVICE", "auto, cpu, mps or cuda[:N].", default="auto")
devices = option("--device DEVICE", "auto, cpu, mps, cuda:0 or cuda:0,1 [default: auto].")
dtype = option(
    "--dtype TYPE", "auto, fp32, bf16, fp16 or int8.",
    type=click.Choice(("auto", "fp32", "bf16", "fp16", "int8")), default="auto",
)  # fmt: skip
engine_run = [jobs("all cores"), batch, dtype]

quiet = option("-q, --quiet", "Print only errors on stderr.")
