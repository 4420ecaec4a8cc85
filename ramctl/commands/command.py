"""The click class of every command: its help, configuration, the call of its `run`."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import click

from ramctl.commands import COMMANDS, module_of
from ramctl.commands.config import environment_names, load_defaults
from ramctl.errors import UsageProblem
from ramctl.records.extras import require
from ramctl.records.files import is_device, is_gzip
from ramctl.records.parquet import SUFFIX
from ramctl.records.report import Report

T = TypeVar("T")


def filled(kind: type[T], values: Mapping[str, Any], **context: Any) -> T:
    """The dataclass `kind`, each field filled with the value of its name.

    Values without a field there fill the fields of nested dataclasses. None means not given: the
    field keeps its default. TypeError for a value that has no field; `context` may have values
    without one.
    """
    used = {"ray"}  # read before

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


INPUTS = click.Argument(["inputs"], nargs=-1, metavar="[FILE]...", type=click.Path())


class RamctlCommand(click.Command):
    """A command whose options also come from the user's file and `RAMCTL_*`.

    Its module in this package holds TARGET, `package.module:Options`: the command calls that
    module's `run` with that dataclass; OPTIONS, under the headings of the help; HELP, EXAMPLES and
    NOTES; ARGUMENTS unless these are INPUTS; EXTRA, if it needs an extra of the package; and
    ENVIRONMENT, variables that the libraries of TARGET read when they are imported.
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
            context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
        )

    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        """The context with the defaults of the user's file in place."""
        options = {item.name or "" for item in self.all_options}
        inherited = {item.name for item in self.all_options if item.inherits}
        defaults = load_defaults(self.name or "", options, inherited, COMMANDS, _all_option_names)
        return super().make_context(*args, default_map=defaults, **attributes)

    def field_values(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters under the names of the fields that they fill."""
        fields = {item.name: item.field for item in self.all_options}
        return {fields.get(name) or name: value for name, value in parameters.items()}

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, here or on a cluster; the exit code."""
        self._require_distinct(ctx.params)
        if extra := getattr(self.module, "EXTRA", None):
            require(extra, "this command")
        if ctx.params.get("ray") is None:
            return self.run(ctx.params).exit_code
        from ramctl.records.ray_engine import run_on_cluster

        return run_on_cluster(self.name or "", ctx.params, run_command).exit_code

    def run(self, parameters: Mapping[str, Any]) -> Report:
        """Call the `run` of the command's module with its dataclass; the report of the run."""
        for name, value in getattr(self.module, "ENVIRONMENT", {}).items():
            os.environ.setdefault(name, value)
        module_name, _, options_name = self.module.TARGET.partition(":")
        module = import_module(module_name)
        fields = self.field_values(parameters)
        context = {"command": self.name, "argv": tuple(sys.argv[1:])}
        kind = getattr(module, options_name)
        options = filled(kind, fields, **context)
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
            with formatter.section(heading.capitalize()):
                formatter.write_dl(help_rows(ctx, group))
        formatter.write(f"\n{self.module.NOTES.strip()}\n")


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
