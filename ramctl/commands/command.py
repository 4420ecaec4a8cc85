"""The click class of every command: its help, its settings and the call of its `run`."""

import os
import sys
from collections.abc import Mapping
from copy import copy
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ramctl.commands.shared_options import OutputFile, key_of

if TYPE_CHECKING:  # no help needs it
    from ramctl.records.report import Report

T = TypeVar("T")


class Command(click.Command):
    """A command with its help, its target, and its options, each group after its heading.

    `target` is `package.module:Settings`: the command calls that module's `run` with that
    dataclass, which the parameters fill. `environment` are variables that the libraries of the
    target read when they are imported.
    """

    name: str
    short_help: str

    def __init__(
        self,
        name: str,
        summary: str,
        text: str,
        target: str,
        *parts: click.Parameter | str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.target = target
        self.environment = environment or {}
        self.sections: dict[str, list[click.Parameter]] = {}
        for part in parts:
            if isinstance(part, str):
                section = self.sections[part] = []
            else:  # a copy: a parameter that several commands share has other variables in each
                section.append(copy(part))
        parameters = [*chain.from_iterable(self.sections.values())]
        self.options = {
            key_of(item.opts[-1]): item for item in parameters if isinstance(item, click.Option)
        }
        for key, declared in self.options.items():
            if declared.envvar is None:
                declared.envvar = [f"RAMCTL_{name}_{key}".upper(), f"RAMCTL_{key}".upper()]
        paragraphs = f"{summary}\n{text}".rstrip().replace("\n\n", "\n\n\b\n")
        rejected = "; 3 some inputs rejected" if "rejects" in self.options else ""
        super().__init__(
            name,
            params=parameters,
            context_settings={"help_option_names": ["-h", "--help"]},
            help="\b\n" + paragraphs,  # \b: click keeps the lines
            short_help=summary,
            epilog=f"Exit codes: 0 done; 1 failed; 2 wrong usage{rejected}.",
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        for heading, group in self.sections.items():
            rows = [item.get_help_record(ctx) for item in group if isinstance(item, click.Option)]
            with formatter.section(heading):
                formatter.write_dl([*filter(None, rows)])

    def invoke(self, ctx: click.Context) -> int:
        """Run the command, here or on a cluster; the exit code."""
        self._require_outputs(ctx.params)
        if ctx.params.get("ray") is None:
            return self.run(ctx.params).exit_code
        from ramctl.records.ray_engine import run_on_cluster

        return run_on_cluster(self.name, ctx.params, self.run).exit_code

    def run(self, parameters: Mapping[str, Any]) -> "Report":
        """Call the `run` of the command's module with its settings; the report of the run."""
        for name, value in self.environment.items():
            os.environ.setdefault(name, value)
        module_name, _, settings_name = self.target.partition(":")
        module = import_module(module_name)
        values = {"command": self.name, "argv": tuple(sys.argv[1:]), **parameters}
        report: Report = module.run(filled(getattr(module, settings_name), values))
        return report

    def _require_outputs(self, parameters: Mapping[str, Any]) -> None:
        """UsageError for -o that is compressed or a folder, and for an output that is read."""
        output = parameters.get("output")
        if output and output.suffix == ".gz":
            raise click.UsageError(f"-o {output}: not compressed here; write by | gzip > {output}")
        if output and output.is_dir() and not parameters.get("ray"):
            raise click.UsageError(f"-o {output} is a folder")
        read, written = set(), {}
        for item in self.params:
            value = parameters[item.name or ""]
            if isinstance(item.type, OutputFile):
                written[item.opts[0]] = value
            elif isinstance(item.type, click.Path):
                names = value if isinstance(value, tuple) else (value or "",)
                read |= {*map(os.path.realpath, names)}
        for flag, path in written.items():
            if path and Path(path).is_file() and os.path.realpath(path) in read:
                raise click.UsageError(f"{flag} {path}: this run reads that file")


def filled(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass with each value in the field of its name, there or in a nested dataclass.

    A field whose value is None keeps its default: the option was not given.
    """
    from dataclasses import MISSING, fields, replace

    rest = {name: value for name, value in values.items() if value is not None}

    def take(kind: Any) -> dict[str, Any]:
        own = {field.name: rest.pop(field.name) for field in fields(kind) if field.name in rest}
        for field in fields(kind):
            if field.name not in own and field.default_factory is not MISSING:
                nested: Any = field.default_factory()
                own[field.name] = replace(nested, **take(nested))
        return own

    return kind(**take(kind))
