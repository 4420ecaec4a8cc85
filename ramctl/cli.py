"""The command group, and `main()`, which turns every failure into one line and an exit code."""

import contextlib
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from ramctl import __version__
from ramctl.commands import COMMANDS
from ramctl.commands.command import RamctlCommand, help_rows, write_lines
from ramctl.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    Interrupted,
    RamctlError,
    did_you_mean,
    escaped,
    one_line,
)
from ramctl.records.extras import extra_of, needs

SENTENCE = """\
ramctl tags photos with a 31 MB model that runs on any CPU. Give it your own words, or train
your own model."""
PIPELINE = (
    "captions | parse | train; then generate | clean | train; finetune or fit; tag | export, eval"
)
TEXT = """\
Most commands add fields to JSONL records. ramctl COMMAND --help lists its options."""
NOTES = """\
Defaults come from RAMCTL_<COMMAND>_<OPTION>, RAMCTL_<OPTION> and ~/.config/ramctl/ramctl.toml
(a table for each command, and [common]), in this order.
Exit codes: 0 all done; 1 failed; 2 wrong usage; 3 done, but some inputs were rejected;
130 interrupted; 141 the reader closed the pipe; 143 terminated."""


@contextlib.contextmanager
def _reader() -> Iterator[None]:
    """Pass on Ctrl-C and a closed pipe, which click would report in its way."""
    try:
        yield
    except BrokenPipeError as error:
        raise click.exceptions.Exit(EXIT_BROKEN_PIPE) from error
    except KeyboardInterrupt as error:  # click would begin another line
        raise Interrupted(signal.SIGINT) from error


class LazyGroup(click.Group):
    """Finds commands by name and imports a command's module only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in pipeline order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; for an unknown name the nearest is suggested."""
        if cmd_name in COMMANDS:
            return RamctlCommand(cmd_name)
        if not ctx.resilient_parsing and not cmd_name.startswith("-"):
            ctx.fail(f"no command {cmd_name!r}{did_you_mean(cmd_name, COMMANDS)}")
        return None

    def make_context(self, *args: Any, **attributes: Any) -> click.Context:
        """The context; where a help is asked for, it is written here."""
        with _reader():
            return super().make_context(*args, **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its result is the exit code."""
        with _reader():
            return super().invoke(ctx)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summary, the pipeline, the commands, the group's own options and the notes."""
        self.format_usage(ctx, formatter)
        write_lines(formatter, ["", *SENTENCE.splitlines(), "", PIPELINE])
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        write_lines(formatter, ["", *TEXT.splitlines()])
        with formatter.section("Options"):
            formatter.write_dl(help_rows(ctx, self.get_params(ctx)))
        write_lines(formatter, ["", *NOTES.splitlines()])


@click.group(
    cls=LazyGroup,
    name="ramctl",
    invoke_without_command=True,
    short_help=SENTENCE,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("--version", is_flag=True, help="Print the version; `ramctl doctor` lists versions.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    if version:
        click.echo(f"ramctl {__version__}")
        ctx.exit(EXIT_OK)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the documented exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((f" {word}" for word in arguments if word in COMMANDS), "")
    # Replace closed streams: an opened file would get their numbers. Only stderr works then.
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, stream) is None:
            flags = os.O_RDONLY if stream == "stdout" else os.O_WRONLY
            os.dup2(os.open(os.devnull, flags), number)  # most often it is that number already
            setattr(sys, stream, os.fdopen(number, "w" if number else "r"))
    try:
        code = _run(arguments, f"ramctl{command}")
        sys.stdout.flush()
    except (Interrupted, KeyboardInterrupt) as stopped:
        _print(f"ramctl{command}", getattr(stopped, "message", "interrupted"))
        _die_of(getattr(stopped, "signum", signal.SIGINT))
    except BrokenPipeError:
        code = EXIT_BROKEN_PIPE
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports it
    except OSError as error:
        code = EXIT_FAILED
        _print(f"ramctl{command}", f"standard output: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(arguments: list[str], name: str) -> int:
    # A damaged photo is reported once, as a reject.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        result: Any = cli.main(args=arguments, prog_name="ramctl", standalone_mode=False)
    except click.exceptions.Exit as finished:
        return finished.exit_code
    except click.UsageError as error:
        _print(name, f"{error.format_message().rstrip('.')} (see {name} --help)")
        return EXIT_USAGE
    except click.ClickException as error:
        _print(name, error.format_message())
        return EXIT_FAILED
    except click.Abort as error:  # what click makes of a signal that comes before ours are set up
        raise KeyboardInterrupt from error
    except (Interrupted, KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:
        _print(name, _message(error))
        if os.environ.get("RAMCTL_TRACEBACK"):
            lines = traceback.format_exc().splitlines()
            sys.stderr.write("".join(f"{escaped(line)}\n" for line in lines))
        return error.exit_code if isinstance(error, RamctlError) else EXIT_FAILED
    return result if isinstance(result, int) else EXIT_OK


def _message(error: Exception) -> str:
    """The message for the user about a failure."""
    if isinstance(error, RamctlError):
        return error.message
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, ModuleNotFoundError) and (extra := extra_of(error.name)):
        return needs("this", extra)
    # torch, whose own kind this is on a GPU, need not be there.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = next(iter(str(error).splitlines()), "no memory is left")
        return f"out of memory: {first} (smaller batches or fewer workers use less)"
    return f"internal error: {type(error).__name__}: {error} (RAMCTL_TRACEBACK=1 shows where)"


def _print(name: str, message: str) -> None:
    sys.stderr.write(f"{name}: {one_line(message)}\n")


def _die_of(signum: int) -> NoReturn:
    """End by the signal itself, so that the parent process sees the true cause."""
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
    sys.exit(128 + signum)
