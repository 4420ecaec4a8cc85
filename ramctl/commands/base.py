"""The click classes behind every command: grouped help, configuration, `--show-config`."""

import re
from collections.abc import Callable, Collection
from typing import Any

import click

from ramctl.config import environment_names, load_defaults

GROUPS = ("input", "output", "model", "run")
_ORIGINS = {
    "COMMANDLINE": "flag",
    "ENVIRONMENT": "environment",
    "DEFAULT_MAP": "ramctl.toml",
    "DEFAULT": "default",
    "PROMPT": "prompt",
}


class GroupedOption(click.Option):
    """An option that knows under which heading of `--help` it stands."""

    def __init__(self, *args: Any, group: str = "run", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.group = group


def option(*declarations: str, group: str = "run", **attributes: Any) -> Callable[[Any], Any]:
    """`click.option` with a heading."""
    return click.option(*declarations, cls=GroupedOption, group=group, **attributes)


class RamctlCommand(click.Command):
    """A command whose options also come from `ramctl.toml` and `RAMCTL_*`.

    Those named in `rare` stand at the end of a long help, in running text.
    """

    def __init__(self, *args: Any, rare: Collection[str] = (), **attributes: Any) -> None:
        self.rare = rare
        settings = attributes.setdefault("context_settings", {})
        settings |= {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        super().__init__(*args, **attributes)
        self.params.append(
            GroupedOption(
                ["--show-config"],
                is_flag=True,
                expose_value=False,
                help="Print every option's value and where it comes from.",
            )
        )
        for parameter in self.params:
            if isinstance(parameter, click.Option) and parameter.envvar is None and self.name:
                parameter.envvar = environment_names(self.name, parameter.name or "")

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context with the configuration files' defaults in place."""
        names = [parameter.name or "" for parameter in self.params]
        extra["default_map"] = load_defaults(self.name or "", names)
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Notice `--show-config` before required values are asked for."""
        if "--show-config" not in args:
            return super().parse_args(ctx, args)
        ctx.resilient_parsing = True
        super().parse_args(ctx, [arg for arg in args if arg != "--show-config"])
        for parameter in self.params:
            name = parameter.name or ""
            source = ctx.get_parameter_source(name)
            if name != "show_config" and source is not None:
                click.echo(f"{name} = {ctx.params.get(name)!r}  # {_ORIGINS[source.name]}")
        ctx.exit(0)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        by_group: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        brief = []
        for parameter in self.get_params(ctx):
            # Newer versions of click have a row for arguments too; the help text explains ours.
            is_option = isinstance(parameter, click.Option)
            row = parameter.get_help_record(ctx) if is_option else None
            if row is not None and parameter.name in self.rare:
                brief.append(_brief(parameter, *row))
            elif row is not None:
                by_group[getattr(parameter, "group", "run")].append(row)
        for group, rows in by_group.items():
            if rows:
                with formatter.section(group.capitalize()):
                    formatter.write_dl(rows)
        if brief:
            with formatter.section("Rarely needed"):
                formatter.write_text("; ".join(brief) + ".")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the closing notes line by line, as they are."""
        if self.epilog:
            formatter.write_paragraph()
            for line in self.epilog.strip().splitlines():
                formatter.write(line + "\n")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help text line by line, so that examples keep their form."""
        formatter.write_paragraph()
        for line in (self.help or "").strip().splitlines():
            if line.strip() == "\b":
                continue
            formatter.write(f"  {line}".rstrip() + "\n")


def _brief(parameter: click.Parameter, names: str, text: str) -> str:
    """An option in running text: its longest name, what it takes, what it does."""
    name, *value = names.rsplit(", ", 1)[-1].replace(" / ", "/").split(" ", 1)
    if isinstance(parameter.type, click.Choice):
        value = []
        text = f"{text.partition('.  [')[0]} ({', '.join(parameter.type.choices)})"
    shown = " ".join([name, *value])
    told = re.sub(r"\.? *\[(default|x>).*\]$", "", text).rstrip(".")
    return f"{shown}: {told[0].lower()}{told[1:]}"
