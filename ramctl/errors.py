"""Exceptions, exit codes and reject codes."""

import re
import signal
from collections.abc import Callable, Collection
from functools import partial
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REJECTS = 3
EXIT_BROKEN_PIPE = 141

MAX_MESSAGE = 1000  # characters

REJECT_CODES = {
    "bad_json": "the line is not a JSON object",
    "bad_utf8": "the line, or the photo's name, is not valid UTF-8",
    "bad_field": "a field has a value of the wrong type",
    "missing_field": "a field that the command needs is not there",
    "missing_image": "the photo's file or archive member does not exist",
    "unreadable_image": "the photo's file cannot be read or decoded",
    "too_large": "the photo or the text is larger than the limit allows",
    "other_language": "a caption is not in English (parse --strict)",
    "bad_sidecar": "a file of keywords or captions beside the photo cannot be read",
    "refused": "the captioner refuses to describe the photo",
    "no_caption": "the captioner's answer is empty or cut off, or it cannot take the photo",
    "write_failed": "a file that belongs to the record could not be written",
}

# Control characters, line ends and marks of text direction.
_UNSAFE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def escaped(text: str) -> str:
    """The text on one line, its control characters written as `\\n` or `\\x1b`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(message: str) -> str:
    """A message ready to print: no control characters, the middle of a long one cut."""
    half, message = MAX_MESSAGE // 2, escaped(message.strip())
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """A hint for the end of a message about an unknown word: the nearest known one, if any."""
    from difflib import get_close_matches  # only after a mistake

    near = get_close_matches(word, sorted(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class RamctlError(Exception):
    """A failure with a message for the user; ends the command unless caught for one record."""

    exit_code = EXIT_FAILED

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class UsageProblem(RamctlError):
    """The command line or the configuration is wrong."""

    exit_code = EXIT_USAGE


class RunProblem(RamctlError):
    """The command cannot start or cannot continue."""


class RecordProblem(RamctlError):
    """One record cannot be processed: it goes to the rejects (REJECT_CODES) and the run goes on."""

    exit_code = EXIT_REJECTS

    def __init__(self, message: str, *, code: str) -> None:
        if code not in REJECT_CODES:
            raise ValueError(f"unknown reject code {code!r}")
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes send it; by default pickle would leave the keyword out.
        return partial(RecordProblem, code=self.code), (self.message,)


def attempt(
    do: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result | RecordProblem:
    """Call the function; its result, or the RecordProblem that it raises."""
    try:
        return do(*args, **kwargs)
    except RecordProblem as problem:
        return problem


class Interrupted(RamctlError):
    """The user or the system asked the command to stop; finished work has been saved.

    `how_to_continue` is added to the message.
    """

    def __init__(self, signum: int, how_to_continue: str = "") -> None:
        what = "terminated" if signum == signal.SIGTERM else "interrupted"
        super().__init__(f"{what}: {how_to_continue}" if how_to_continue else what)
        self.signum = signum
        self.exit_code = 128 + signum
