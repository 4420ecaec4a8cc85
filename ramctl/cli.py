"""The command group, and `main()`, which turns every failure into one line and an exit code."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ramctl import __version__
from ramctl.commands import photo_commands, training_commands
from ramctl.commands.config import default_map
from ramctl.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    Interrupted,
    RamctlError,
    did_you_mean,
    one_line,
)

GROUPS = {"Photos": photo_commands.COMMANDS, "Training": training_commands.COMMANDS}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
COMPLETE = "_RAMCTL_COMPLETE"  # the variable by which shells ask for completions
SENTENCE = """\
ramctl tags photos with a 31 MB model that runs on any CPU. Give it your own words, or train
your own model."""
HELP = f"""\b
{SENTENCE}

\b
captions | parse | train; then generate | clean | train; finetune or fit; tag | export, eval

\b
Most commands add fields to JSONL records. ramctl COMMAND --help lists its options."""
NOTES = """\b
Defaults come from RAMCTL_<COMMAND>_<OPTION>, RAMCTL_<OPTION> and ~/.config/ramctl/ramctl.toml
(a table for each command, and [common]), in this order.
Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, but some inputs were rejected;
130 interrupted; 141 the reader closed the pipe; 143 terminated."""


class CommandGroup(click.Group):
    """The commands in two groups; their code is imported when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; for an unknown name the nearest is suggested."""
        if cmd_name not in COMMANDS and not ctx.resilient_parsing:
            ctx.fail(f"no command {cmd_name!r}{did_you_mean(cmd_name, COMMANDS)}")
        return COMMANDS.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their summaries, under the names of their groups."""
        for heading, commands in GROUPS.items():
            with formatter.section(heading):
                formatter.write_dl([(item.name, item.short_help) for item in commands])


@click.group(
    cls=CommandGroup,
    name="ramctl",
    invoke_without_command=True,
    help=HELP,
    epilog=NOTES,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, message="ramctl %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((f"ramctl {word}" for word in arguments if word in COMMANDS), "ramctl")
    warnings.filterwarnings("ignore", module="PIL")  # a damaged photo is reported once, as a reject
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except click.exceptions.Exit as finished:
        code = finished.exit_code
    except click.UsageError as error:
        code = EXIT_USAGE
        _print(name, f"{error.format_message().rstrip('.')} (see {name} --help)")
    except (Interrupted, KeyboardInterrupt) as stopped:
        _print(name, getattr(stopped, "message", "interrupted"))
        signum = getattr(stopped, "signum", signal.SIGINT)
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)  # so that the parent process sees the true cause
        code = 128 + signum
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports it
    except Exception as error:
        code = error.exit_code if isinstance(error, RamctlError) else EXIT_FAILED
        _print(name, _message(error))
        if os.environ.get("RAMCTL_TRACEBACK"):
            import traceback

            traceback.print_exc()
    gc.freeze()  # the end of the process looks for no cycles
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Answer a shell that completes a line, or run the command; the exit code."""
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "ramctl", COMPLETE, instruction)
    with cli.make_context("ramctl", arguments, default_map=default_map(COMMANDS)) as context:
        code: Any = cli.invoke(context)
    return code or EXIT_OK


def _message(error: Exception) -> str:
    """The message for the user about a failure."""
    if isinstance(error, RamctlError):
        return error.message
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, ModuleNotFoundError):
        from ramctl.records.extras import extra_of, needs

        if extra := extra_of(error.name):
            return needs("this", extra)
    # torch, whose own kind this is on a GPU, need not be there.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = next(iter(str(error).splitlines()), "no memory is left")
        return f"out of memory: {first} (smaller batches or fewer workers use less)"
    return f"internal error: {type(error).__name__}: {error} (RAMCTL_TRACEBACK=1 shows where)"


def _print(name: str, message: str) -> None:
    sys.stderr.write(f"{name}: {one_line(message)}\n")
