"""The click classes behind every command: help in two sizes, configuration, typed options."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem, FishComplete, add_completion_class

from ramctl.commands import COMMANDS, MODULES
from ramctl.config import HERE, environment_names, load_defaults
from ramctl.errors import UsageProblem, without_secrets
from ramctl.parts import require
from ramctl.records.files import beside, is_device, require_known_packing
from ramctl.records.outputs import rejects_file
from ramctl.records.ownership import require_own_outputs
from ramctl.records.parquet import SUFFIX
from ramctl.records.record import KINDS
from ramctl.records.report import Report
from ramctl.records.shards import Shard

T = TypeVar("T")

BRIEF_COLUMN = 26  # of names; a longer one stands on a line of its own
HELP_ROW = ("-h, --help", "Show this summary (-h) or every option (--help).")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def read_duration(text: str) -> float:
    """The seconds of a number with s, m, h or d, or without: seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match:
        raise click.BadParameter(f"{text!r} is not a duration such as 90, 15m or 2h")
    return float(match[1]) * _UNIT_S[match[2]]


def read_shard(text: str) -> Shard:
    """The shard of `I/N`."""
    if (match := re.fullmatch(r"([0-9]+)/([0-9]+)", text)) is None:
        raise click.BadParameter(f"{text!r} is not a shard such as 1/4")
    index, number = match.groups()
    if not 1 <= int(index) <= int(number):
        raise click.BadParameter(f"{text!r}: shards count from 1/{number} to {number}/{number}")
    return Shard(int(index), int(number))


def read_kinds(text: str) -> tuple[str, ...]:
    """The kinds of tags that are named, in any order; `none` and `all` for the extremes."""
    words = {"none": set(), "all": set(KINDS)}.get(text, set(text.split(",")))
    if unknown := words - set(KINDS):
        raise click.BadParameter(f"{min(unknown)!r} is not one of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in words)


# The types of values that are named so in a help.
_TYPES: "dict[str, click.ParamType[Any] | Callable[[str], Any]]" = {  # click 8.2 has no generics
    "FILE": click.Path(dir_okay=False, path_type=Path),
    "DIR": click.Path(file_okay=False, path_type=Path),
    "N": click.IntRange(1),
    "P": click.FloatRange(0, 1, min_open=True, max_open=True),
    "SHARE": click.FloatRange(0, 1),
    "SCORE": click.FloatRange(0, 1),
    "TIME": read_duration,
    "I/N": read_shard,
    "KIND,...": read_kinds,
}

# Options that say where things go, whom to ask or what to undo, besides those that write a file.
_USERS_ALONE = {
    "cache", "detector", "distill", "download", "forget_refused", "host", "out", "port", "prune",
    "ray", "restart", "to", "txt", "txt_existing", "txt_extension", "work", "xmp", "xmp_remove",
}  # fmt: skip

# What shells complete, by words in the names that a help gives to values.
_OFFERED = {"FILE": "file", "PHOTOS": "file", "DIR": "dir", "BUNDLE": "dir"}
Offer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[Any]]"]


def names_offered(metavar: str) -> Offer | None:
    """What lets the shell complete a value that its help calls so; None for one that is no name."""
    kind = next((kind for word, kind in _OFFERED.items() if word in metavar), None)
    if kind is None:
        return None
    return lambda ctx, parameter, incomplete: [CompletionItem(incomplete, type=kind)]


@add_completion_class
class Fish(FishComplete):
    """click's, whose script cuts a description at its first comma."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )


class Option(click.Option):
    """One of click's options with three more facts."""

    def __init__(
        self,
        *args: Any,
        common: bool = False,
        writes: bool = False,
        field: str | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.common = common  # `-h` shows it too
        self.writes = writes  # it names a file that is replaced
        self.field = field  # that it fills in the command's dataclass; None: that of its name

    def may_be_set_here(self, value: object) -> bool:
        """Whether the working directory's configuration, which may be anybody's, may set it so.

        A bundle is data; KIND:PATH is read by another program, at a URL a host is asked, and a
        preset of the folder's may name one.
        """
        asks = "://" in str(value) or (self.metavar == "BUNDLE" and ":" in str(value))
        asks |= self.name == "preset" and Path(str(value)).suffix == ".toml"
        return not (self.writes or self.name in _USERS_ALONE or asks)

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What click adds to a help text, but for ranges: the error message names them."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


def option(spec: str, help: str, **attributes: Any) -> Option:
    """An option declared as its help shows it.

    `-o, --output FILE` takes a value, `--to [a|b]` one of these, `--dry-run` none. FILE, DIR, N
    (from 1) and the others of `_TYPES` are also types, unless another is given. The parameter, and
    with it the variable and the key in a file, has the long option's name; the rest is `Option`'s
    and click's.
    """
    names, _, metavar = spec.replace(", ", ",").partition(" ")
    if offered := names_offered(metavar):
        attributes.setdefault("shell_complete", offered)
    if metavar.startswith("[") and metavar.endswith("]"):
        attributes["type"] = click.Choice(metavar[1:-1].split("|"))
    elif metavar:
        attributes = {"metavar": metavar, "type": _TYPES.get(metavar)} | attributes
    elif "count" not in attributes:
        attributes["is_flag"] = True
    attributes.setdefault("show_default", "default" in attributes)
    *_, last = declarations = names.split(",")
    parameter = last.partition("/")[0].lstrip("-").replace("-", "_")
    return Option([*declarations, parameter], help=help, **attributes)


common = partial(option, common=True)


def filled(kind: type[T], values: Mapping[str, Any], **context: Any) -> T:
    """A command's dataclass, each field filled with the value of its name.

    In a field that is itself a dataclass, the values that are left replace its defaults. A value
    of None was not given: the field keeps its default. TypeError for a value without a field;
    what is in `context` need not have one.
    """
    used = {"verbose", "download"}  # main() and obtain() read them

    def of_fields(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
        names = {field.name for field in fields(kind)} & values.keys()
        used.update(names)
        changed = {name: values[name] for name in names if values[name] is not None}
        rest = {name: value for name, value in values.items() if name not in names}
        for field in fields(kind):
            nested: Any = None if field.default_factory is MISSING else field.default_factory()
            if field.name not in names and is_dataclass(nested) and not isinstance(nested, type):
                changed[field.name] = replace(nested, **of_fields(nested, rest))
        return changed

    changed = of_fields(kind, {**values, **context})
    if unknown := values.keys() - used:
        raise TypeError(f"{kind.__name__} has no field {min(unknown)!r}")
    return kind(**changed)


class TwoHelps(click.Command):
    """A command whose `-h` fits a screen and whose `--help` is complete."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes | {"add_help_option": False})

        def show(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
            if wanted and not ctx.resilient_parsing:
                click.echo(self.brief_help(ctx) if parameter.name == "h" else self.get_help(ctx))
                ctx.exit()

        shared: dict[str, Any] = {"callback": show, "is_eager": True, "expose_value": False}
        self._helps = [option(name, "", **shared) for name in ("-h", "--help")]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters, and both helps, which no file or variable can ask for."""
        return [*super().get_params(ctx), *self._helps]

    def brief_help(self, ctx: click.Context) -> str:
        """The help that fits a screen."""
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        self.format_brief(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_brief(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what follows the usage line in the brief help."""
        raise NotImplementedError


INPUTS = click.Argument(["inputs"], nargs=-1, metavar="[FILE]...", type=click.Path())


class RamctlCommand(TwoHelps):
    """A command whose options also come from `ramctl.toml` and `RAMCTL_*`.

    Its module in this package, or a class there, holds TARGET, the module of its `run` and of the
    dataclass that run takes, as `package.module:Options`, which is imported when the command is
    called; OPTIONS, under the headings of `--help`; HELP, EXAMPLES and NOTES; ARGUMENTS where these
    are not INPUTS; and EXTRA where it needs one of the package's.
    """

    def __init__(self, name: str) -> None:
        module: Any = import_module(f"ramctl.commands.{MODULES.get(name, name)}")
        if name in MODULES:
            module = getattr(module, name.capitalize())
        self.module = module
        self.summary = COMMANDS[name]
        self.examples = [f"  {line}" for line in module.EXAMPLES.strip().splitlines()]
        # Copies: an option that several commands share has other variables in each.
        self.options = {heading: [*map(copy, own)] for heading, own in module.OPTIONS.items()}
        self.all_options = [*chain.from_iterable(self.options.values())]
        for one in self.all_options:
            one.envvar = environment_names(name, one.name or "")
        super().__init__(
            name,
            params=[*getattr(module, "ARGUMENTS", [INPUTS]), *self.all_options],
            help=module.HELP,
            short_help=self.summary,
            context_settings={"max_content_width": 100},
        )

    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        """The context with the configuration files' defaults in place."""
        options = {one.name or "": one for one in self.all_options}
        user_s, here = load_defaults(
            self.name or "", options, COMMANDS, _options_of_all,
            lambda name, value: options[name].may_be_set_here(value),
        )  # fmt: skip
        context = super().make_context(*args, default_map=user_s | here, **attributes)
        context.meta[HERE] = here
        return context

    def _say_what_is_set_here(self, ctx: click.Context) -> None:
        """Name what the configuration of the working directory sets, which cannot silence that."""
        by_file = click.core.ParameterSource.DEFAULT_MAP
        used = {k: v for k, v in ctx.meta[HERE].items() if ctx.get_parameter_source(k) == by_file}
        shown = partial(json.dumps, default=str, ensure_ascii=False)
        if used and ("quiet" in used or not ctx.params.get("quiet")):
            settings = ", ".join(f"{name} = {shown(value)}" for name, value in used.items())
            Report(self.name or "").say(f"{HERE} sets {settings}")

    def field_values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under the names of the fields that they fill."""
        fields = {one.name: one.field for one in self.all_options}
        return {fields.get(name) or name: value for name, value in parameters.items()}

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command's `run` with its dataclass; the exit code."""
        self._say_what_is_set_here(ctx)
        self._require_distinct(ctx.params)
        if extra := getattr(self.module, "EXTRA", None):
            require(extra, "this command")
        if name := ctx.params.get("model"):
            obtain(name, ctx.params)
        module_name, _, options_name = self.module.TARGET.partition(":")
        module = import_module(module_name)
        fields = self.field_values(ctx.params)
        context = {"command": self.name, "argv": tuple(map(without_secrets, sys.argv[1:]))}
        options = filled(getattr(module, options_name), fields, **context)
        stream = getattr(options, "stream", None)
        if stream is not None and stream.ray is not None:
            from ramctl.ray_engine import run

            return run(module_name, self.name or "", options).exit_code
        if stream is not None and stream.output is not None and stream.output.is_dir():
            raise click.UsageError(f"-o {stream.output} is a folder")
        if stream is not None:  # here, as `generate` and `clean` work before they open them
            require_own_outputs(stream.output, rejects_file(stream.rejects))
        return module.run(options).exit_code

    def _require_distinct(self, parameters: Mapping[str, Any]) -> None:
        """UsageProblem where a file that is written is read as well, written twice, or packed."""
        written = [one for one in self.all_options if one.writes]
        others = parameters.keys() - {one.name for one in written}
        read = set().union(*(_files(parameters[name]) for name in others))
        named: dict[Path, str] = {}
        made: dict[Path, str] = {}
        for one in written:
            path = parameters[one.name or ""]
            if _files(path) & read:
                raise click.UsageError(f"{one.opts[-1]} {path}: this run reads that file")
            if path in (None, "-") or is_device(Path(path)):
                continue
            places = beside(Path(path))
            if _files((*places,)) & read:
                raise click.UsageError(
                    f"{one.opts[-1]} {path}: would overwrite a file that this run reads"
                )
            made |= {Path(os.path.realpath(p)): f"{one.opts[0]} {path}" for p in places}
            require_known_packing(str(path))
            if str(path).endswith(SUFFIX) and parameters.get("format") != "parquet":
                raise UsageProblem(f"{path}: Parquet is written by ramctl export -f parquet")
            other = named.setdefault(Path(os.path.realpath(path)), one.opts[0])
            if other != one.opts[0]:
                raise UsageProblem(f"{other} and {one.opts[0]} name one file, {path}")
        for path, flag in named.items():
            if whose := next((made[one] for one in (path, *path.parents) if one in made), None):
                raise UsageProblem(f"{flag}: {whose} uses that name for a file of its own")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write everything; texts stand as they are, so that examples keep their form."""
        self.format_usage(ctx, formatter)
        write_lines(formatter, ["", self.summary, "", *(self.help or "").strip().splitlines()])
        write_lines(formatter, ["", "Examples:", *self.examples])
        for heading, own in self.options.items():
            with formatter.section(heading.capitalize()):
                formatter.write_dl(help_rows(ctx, own) + [HELP_ROW] * (heading == "run"))
        formatter.write(f"\n{self.module.NOTES.strip()}\n")

    def format_brief(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary, the examples and the common options."""
        write_lines(formatter, ["", self.summary, "", *self.examples])
        shown = [one for one in self.all_options if one.common]
        with formatter.section("Options"):
            formatter.write_dl([*help_rows(ctx, shown), HELP_ROW], col_max=BRIEF_COLUMN)
        n_more = len(self.all_options) - len(shown)
        more = f"{n_more} more option{'s' * (n_more > 1)} and exit codes: {ctx.command_path} --help"
        formatter.write(f"\n{more}\n")


def obtain(name: str, parameters: Mapping[str, Any]) -> None:
    """Download a known model that is not here, with `--download` or after a yes on a terminal.

    UsageProblem for a peer without labels, while nothing is downloaded.
    """
    from ramctl.checkpoints.bundle import missing_model  # not for a help

    known = missing_model(name)
    if known is None or (known.peer and "labels" not in parameters):  # then it needs a bundle
        return
    if known.peer and not parameters["labels"]:
        raise UsageProblem(f"model {name}: has no labels of its own; name some with --labels")
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    question = f"{known.name}: {known.offer}. Download{'' if known.peer else ' and convert'}?"
    if parameters.get("download") or (asks and click.confirm(question, err=True)):
        require("train", f"model {name}")
        from ramctl.convert import ConvertOptions, install

        quiet = bool(parameters.get("quiet"))
        install(ConvertOptions(name, argv=("convert", name)), Report("convert", quiet=quiet))


def _files(value: Any) -> set[tuple[int, int]]:
    """What identifies the files that a parameter's value names, if it does."""
    identities: set[tuple[int, int]] = set()
    names = value if isinstance(value, tuple) else (value,)
    for path in (Path(os.fsdecode(name)) for name in names if isinstance(name, str | bytes | Path)):
        with suppress(OSError, ValueError):
            if path.is_file():
                identities.add((path.stat().st_dev, path.stat().st_ino))
    return identities


def _options_of_all() -> set[str]:
    options = chain.from_iterable(RamctlCommand(name).all_options for name in COMMANDS)
    return {one.name or "" for one in options}


def help_rows(ctx: click.Context, options: Iterable[click.Parameter]) -> list[tuple[str, str]]:
    """Names and help of some options."""
    return list(filter(None, (one.get_help_record(ctx) for one in options)))


def write_lines(formatter: click.HelpFormatter, lines: Iterable[str]) -> None:
    """Write lines as they are, indented like the text of a help."""
    for line in lines:
        formatter.write(f"  {line}".rstrip() + "\n")
