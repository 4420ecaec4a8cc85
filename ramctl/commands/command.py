"""The click class of every command: help in two sizes, configuration, the call of its `run`."""

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

from ramctl.commands import COMMANDS, module_of
from ramctl.commands.options import option
from ramctl.config import HERE, environment_names, load_defaults
from ramctl.errors import UsageProblem
from ramctl.parts import require
from ramctl.records.files import is_device, is_gzip
from ramctl.records.parquet import SUFFIX
from ramctl.records.report import Report

T = TypeVar("T")

BRIEF_COLUMN = 26  # of names; a longer one stands on a line of its own
RENAMED = {"--init": "--model", "--report": "--review"}  # options of 0.1.0
HELP_ROW = ("-h, --help", "Show this summary (-h) or every option (--help).")


def filled(kind: type[T], values: Mapping[str, Any], **context: Any) -> T:
    """The dataclass `kind`, each field filled with the value of its name.

    Values without a field there fill the fields of nested dataclasses. None means not given: the
    field keeps its default. TypeError for a value that has no field; `context` may have values
    without one.
    """
    used = {"verbose", "ray"}  # read before

    def field_values(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
        names = {field.name for field in fields(kind)} & values.keys()
        used.update(names)
        changed = {name: values[name] for name in names if values[name] is not None}
        rest = {name: value for name, value in values.items() if name not in names}
        for field in fields(kind):
            nested: Any = None if field.default_factory is MISSING else field.default_factory()
            if field.name not in names and is_dataclass(nested) and not isinstance(nested, type):
                changed[field.name] = replace(nested, **field_values(nested, rest))
        return changed

    changed = field_values(kind, {**values, **context})
    if unknown := values.keys() - used:
        raise TypeError(f"{kind.__name__} has no field {min(unknown)!r}")
    return kind(**changed)


class TwoHelps(click.Command):
    """A command whose `-h` fits a screen and whose `--help` is complete."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes | {"add_help_option": False})

        def show(ctx: click.Context, parameter: click.Parameter, requested: bool) -> None:
            if requested and not ctx.resilient_parsing:
                click.echo(self.brief_help(ctx) if parameter.name == "h" else self.get_help(ctx))
                ctx.exit()

        shared: dict[str, Any] = {"callback": show, "is_eager": True, "expose_value": False}
        self._helps = [option(name, "", **shared) for name in ("-h", "--help")]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The parameters and both help options, which no file or variable can set."""
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

    Its module in this package holds TARGET, `package.module:Options`: the command calls that
    module's `run` with that dataclass; OPTIONS, under the headings of `--help`; HELP, EXAMPLES and
    NOTES; ARGUMENTS unless these are INPUTS; NEEDS, options without effect alone; RIVALS,
    of which those on the command line replace the others; and EXTRA, if it needs an extra of the
    package.
    """

    def __init__(self, name: str) -> None:
        module: Any = import_module(module_of(name))
        self.module = module
        self.summary = COMMANDS[name]
        self.examples = [f"  {line}" for line in module.EXAMPLES.strip().splitlines()]
        # Copies: an option that several commands share has other variables in each.
        self.options = {heading: [*map(copy, group)] for heading, group in module.OPTIONS.items()}
        self.all_options = [*chain.from_iterable(self.options.values())]
        for item in self.all_options:
            variables = environment_names(name, item.name or "")
            item.envvar = variables if item.inherits else variables[:1]
        super().__init__(
            name,
            params=[*getattr(module, "ARGUMENTS", [INPUTS]), *self.all_options],
            help=module.HELP,
            short_help=self.summary,
            context_settings={"max_content_width": 100},
        )

    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        """The context with the configuration files' defaults in place."""
        options = {item.name or "": item for item in self.all_options}
        inherited = {item.name for item in self.all_options if item.inherits}
        user_defaults, folder_defaults = load_defaults(
            self.name or "", options, inherited, COMMANDS, _all_option_names,
            lambda name, value: options[name].may_be_set_by_folder(value),
        )  # fmt: skip
        defaults = user_defaults | folder_defaults
        context = super().make_context(*args, default_map=defaults, **attributes)
        context.meta[HERE] = folder_defaults
        return context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's, with the new name of an option that had another one."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if new := RENAMED.get(error.option_name):
                raise click.UsageError(f"{error.option_name} is {new} now", ctx) from error
            raise

    def _report_folder_settings(self, ctx: click.Context) -> None:
        """Print the settings that come from `./ramctl.toml`; its own `quiet` does not hide them."""
        by_file = click.core.ParameterSource.DEFAULT_MAP
        used = {
            name: value for name, value in ctx.meta[HERE].items()
            if ctx.get_parameter_source(name) == by_file and ctx.params[name] is not None
        }  # fmt: skip
        shown = partial(json.dumps, default=str, ensure_ascii=False)
        if used and ("quiet" in used or not ctx.params.get("quiet")):
            settings = ", ".join(f"{name} = {shown(value)}" for name, value in used.items())
            Report(self.name or "").notify(f"{HERE} sets {settings}")

    def field_values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under the names of the fields that they fill."""
        fields = {item.name: item.field for item in self.all_options}
        return {fields.get(name) or name: value for name, value in parameters.items()}

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, here or on a cluster; the exit code."""
        by_user = click.core.ParameterSource.COMMANDLINE
        rivals = set(getattr(self.module, "RIVALS", ()))
        if given := {name for name in rivals if ctx.get_parameter_source(name) == by_user}:
            ctx.params.update(dict.fromkeys(rivals - given))
        self._report_folder_settings(ctx)
        self._require_distinct(ctx.params)
        # A file or variable may set the one for the runs that have the other.
        for name, other in getattr(self.module, "NEEDS", {}).items():
            if ctx.get_parameter_source(name) == by_user and not ctx.params[other]:
                raise UsageProblem(f"--{name} needs --{other}".replace("_", "-"))
        if extra := getattr(self.module, "EXTRA", None):
            require(extra, "this command")
        if ctx.params.get("ray") is None:
            names = {
                item.field or item.name or ""
                for item in self.all_options
                if ctx.get_parameter_source(item.name or "") != by_user
            }
            return self.run(ctx.params, names).exit_code
        from ramctl.ray_engine import run_on_cluster

        return run_on_cluster(self.name or "", ctx.params, run_command).exit_code

    def run(self, parameters: Mapping[str, Any], inherited: Collection[str] = ()) -> Report:
        """Call the `run` of the command's module with its dataclass; the report of the run.

        `inherited` are the fields that the command line leaves out.
        """
        module_name, _, options_name = self.module.TARGET.partition(":")
        module = import_module(module_name)
        fields = self.field_values(parameters)
        context = {"command": self.name, "argv": tuple(sys.argv[1:])}
        kind = getattr(module, options_name)
        options = filled(kind, fields, inherited=inherited, **context)
        stream = getattr(options, "stream", None)
        if stream is not None and stream.output is not None and stream.output.is_dir():
            raise click.UsageError(f"-o {stream.output} is a folder")
        report: Report = module.run(options)
        return report

    def _require_distinct(self, parameters: Mapping[str, Any]) -> None:
        """UsageProblem if an output is also an input, another output, or compressed."""
        written = [output for output in self.all_options if output.writes]
        others = parameters.keys() - {output.name for output in written}
        read = set().union(*(_files(parameters[name]) for name in others))
        outputs: dict[str, str] = {}
        for output in written:
            path, flag = parameters[output.name or ""], output.opts[0]
            if _files(path) & read:
                raise UsageProblem(f"{flag} {path}: this run reads that file")
            if path in (None, "-") or is_device(Path(path)):
                continue
            if path == Path("-"):
                raise UsageProblem(f"{flag} -: name a file")
            if is_gzip(str(path)):
                raise UsageProblem(f"{flag} {path}: not compressed here; write by | gzip > {path}")
            if str(path).endswith(SUFFIX) and parameters.get("format") != "parquet":
                raise UsageProblem(f"{path}: Parquet is written by ramctl tag or export -f parquet")
            other = outputs.setdefault(os.path.realpath(path), flag)
            if other != flag:
                raise UsageProblem(f"{other} and {flag} are the same file, {path}")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write everything; texts stand as they are, so that examples keep their form."""
        self.format_usage(ctx, formatter)
        write_lines(formatter, ["", self.summary, "", *(self.help or "").strip().splitlines()])
        write_lines(formatter, ["", "Examples:", *self.examples])
        for heading, group in self.options.items():
            rows = help_rows(ctx, [item for item in group if not item.shared])
            with formatter.section(heading.capitalize()):
                formatter.write_dl(rows + [HELP_ROW] * (heading == "run"))
        if shared := [item.opts[0] for item in self.all_options if item.shared]:
            formatter.write("\n")
            formatter.write_text(f"Also (see ramctl --help): {', '.join(shared)}.")
        formatter.write(f"\n{self.module.NOTES.strip()}\n")

    def format_brief(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary, the examples and the common options."""
        write_lines(formatter, ["", self.summary, "", *self.examples])
        shown = [item for item in self.all_options if item.common]
        with formatter.section("Options"):
            formatter.write_dl([*help_rows(ctx, shown), HELP_ROW], col_max=BRIEF_COLUMN)
        n_more = len(self.all_options) - len(shown)
        more = f"{n_more} more option{'s' * (n_more > 1)} and exit codes: {ctx.command_path} --help"
        formatter.write(f"\n{more}\n")


def run_command(name: str, parameters: Mapping[str, Any]) -> Report:
    """Run a command in another process than the one that has read its options."""
    return RamctlCommand(name).run(parameters)


def _files(value: Any) -> set[tuple[int, int]]:
    """Device and inode of each existing file that a parameter's value names."""
    identities: set[tuple[int, int]] = set()
    names = value if isinstance(value, tuple) else (value,)
    for path in (Path(os.fsdecode(name)) for name in names if isinstance(name, str | bytes | Path)):
        with suppress(OSError, ValueError):
            if path.is_file():
                identities.add((path.stat().st_dev, path.stat().st_ino))
    return identities


def _all_option_names() -> set[str]:
    options = chain.from_iterable(RamctlCommand(name).all_options for name in COMMANDS)
    return {item.name or "" for item in options}


def help_rows(ctx: click.Context, options: Iterable[click.Parameter]) -> list[tuple[str, str]]:
    """The rows of a help: names and text of each option."""
    return list(filter(None, (item.get_help_record(ctx) for item in options)))


def write_lines(formatter: click.HelpFormatter, lines: Iterable[str]) -> None:
    """Write lines as they are, indented like the text of a help."""
    for line in lines:
        formatter.write(f"  {line}".rstrip() + "\n")
