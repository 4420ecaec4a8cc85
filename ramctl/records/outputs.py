"""The output and rejects of a run, and the state by which `--resume` continues them."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import (
    followed,
    is_device,
    kept_path,
    move_into_place,
    naming,
    open_device,
    output_lock,
    part_path,
    replacing,
    state_path,
    sync_file,
)
from ramctl.records.state import START_OVER, Entry, ResumeState, roll_forward

STDOUT = Path("standard output")


class Sink:
    """A stream to which lines are written, or nothing."""

    def __init__(self, stream: BinaryIO | None = None, path: Path = STDOUT) -> None:
        self._stream = stream
        self._path = path  # for messages
        self.end = 0  # bytes written

    def write(self, data: bytes) -> int:
        """Append data; return the offset after it."""
        if self._stream is not None:
            try:  # not `naming`, which would cost a microsecond a record
                self._stream.write(data)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise RunProblem(f"{self._path}: {error.strerror or error}") from error
            self.end += len(data)
        return self.end

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if self._stream is not None:
            with naming(self._path):
                self._stream.flush()

    def close(self) -> None:
        """Close a file that stays unfinished, to be continued."""

    def finish(self) -> None:
        """Give the file its name."""


class PartFile(Sink):
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume` an unfinished part is continued, else a copy of FILE, made at the first write.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.part = part_path(path)
        super().__init__(path=self.part)
        self.target = followed(path)
        if resume:
            files = [file for file in (self.part, self.target) if file.is_file()]
            self.end = files[0].stat().st_size if files else 0
        else:
            kept_path(self.part).unlink(missing_ok=True)
            with naming(self.part):
                self._stream = self.part.open("wb")

    def cut(self, end: int) -> None:
        """Drop everything after byte `end`, which a killed run wrote but did not record."""
        if end < self.end:
            self.end = end
            self._open()

    def write(self, data: bytes) -> int:
        if self._stream is None:
            self._open()
        return super().write(data)

    def _open(self) -> None:
        with naming(self.part):
            if not self.part.exists() and self.target.exists():
                self._copy(self.target, [])
                kept_path(self.part).replace(self.part)
            self._stream = self.part.open("ab")
            self._stream.truncate(self.end)

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with naming(self.part):
                stream.close()

    def compact(self, stale: Iterable[tuple[int, int]]) -> None:
        """Write a copy of the file, without these ranges, beside it."""
        self.close()
        with naming(self.part):
            self._copy(self.part if self.part.exists() else self.target, stale)

    def finish(self) -> None:
        self.close()
        with naming(self.part):
            if self.part.exists():
                sync_file(self.part)
                move_into_place(self.part, self.target)

    def _copy(self, source: Path, stale: Iterable[tuple[int, int]]) -> None:
        """Copy the content to `FILE.part.kept`, without the ranges, which are in order."""
        with source.open("rb") as old, kept_path(self.part).open("wb") as new:
            for start, end in chain(stale, [(self.end, self.end)]):
                while block := old.read(min(start - old.tell(), 1 << 20)):
                    new.write(block)
                old.seek(end)
            new.flush()
            os.fsync(new.fileno())


def rejects_file(name: str | None) -> Path | None:
    """The file of `--rejects`; None for `-`, which is stderr."""
    return None if name in (None, "-") else Path(name)


def open_rejects(name: str | None) -> Sink:
    """The sink for rejects: a file, `-` for stderr, or nowhere."""
    path = rejects_file(name)
    if path is None:
        return Sink(sys.stderr.buffer if name else None)
    return Sink(open_device(path), path) if is_device(path) else PartFile(path)


@contextmanager
def records_to_stdout() -> Iterator[BinaryIO]:
    """Standard output as bytes; meanwhile other output of this process goes to stderr."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # an in-memory stream, as under a test runner
        target = cast(BinaryIO, sys.stdout.buffer)
        with redirect_stdout(sys.stderr):
            yield target
        return
    private = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    stream = os.fdopen(os.dup(private), "wb")
    try:
        with redirect_stdout(sys.stderr):
            yield stream
            with naming(STDOUT):
                stream.flush()
    finally:
        with suppress(OSError):  # reported before
            stream.close()
        os.dup2(private, descriptor)
        os.close(private)


def write_to_stdout(text: str) -> None:
    """Write text to standard output."""
    with records_to_stdout() as stream:
        stream.write(text.encode())


@contextmanager
def open_outputs(
    output: Path | None, rejects: str | None, *,
    resume: bool, command: str, fingerprint: Mapping[str, str], n_header: int,
    notify: Callable[[str], None], has_records: bool = True,
) -> Iterator["RunOutputs"]:  # fmt: skip
    """Lock and open the outputs of a run; with `resume` at the end of the recorded entries."""
    with ExitStack() as stack:
        stack.enter_context(output_lock(output, rejects_file(rejects)))
        if output is None or is_device(output):
            if resume:
                raise UsageProblem("--resume needs -o FILE: only a file can be continued")
            opened = replacing(output) if output else records_to_stdout()
            sink = Sink(stack.enter_context(opened), output or STDOUT) if has_records else Sink()
            yield RunOutputs(sink, open_rejects(rejects))
            return
        state = ResumeState(state_path(output), command, fingerprint, n_header)
        if not resume:
            if (part := part_path(output)).exists() and state_path(output).exists():
                notify(f"{part}: an unfinished run is discarded (--resume continues one)")
            sink = open_rejects(rejects)
            state.start()  # first, so that no crash leaves an old one beside a new part
            yield RunOutputs(PartFile(output), sink, state)
            return
        roll_forward(output)
        done = PartFile(output, resume=True)
        state.load(done.end)
        if 0 < done.end != state.end and not done.part.exists():
            why = "was changed by another program, so --resume cannot find what is done"
            raise RunProblem(f"{output}: {why}; {START_OVER}")
        done.cut(state.end if done.end >= state.end else 0)  # the header may be torn
        yield RunOutputs(done, open_rejects(rejects), state)


@dataclass(slots=True)
class RunOutputs:
    """The output, rejects and state of a run.

    The state is written last, so that it never records lines that a crash has lost.
    """

    done: Sink
    rejects: Sink
    state: ResumeState | None = None  # of an output that is a file

    def earlier(self, key: str, stamp: str = "") -> Entry | None:
        """The entry of an earlier run for an input with this stamp."""
        return self.state.take(key, stamp) if self.state else None

    def write(self, key: str, stamp: str, line: bytes, drops: Entry | None) -> None:
        """Write the line of an input; `drops` is the earlier entry that it replaces."""
        end = self.done.write(line)
        if self.state:
            self.state.add(key, stamp, end, drops)

    def reject(self, line: bytes, drops: Entry | None) -> None:
        """Write the reject of an input; `drops` is its earlier entry."""
        self.rejects.write(line)
        if self.state and drops:
            self.state.drop(drops)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self.rejects.flush()
        self.done.flush()
        if self.state:
            self.state.flush()

    def save(self) -> None:
        """Close the files, for `--resume` to continue; it tries rejected inputs again."""
        self.flush()
        self.rejects.finish()
        self.done.close()
        if self.state:
            self.state.close()

    def finish(self) -> None:
        """Give the files their names, without dropped lines."""
        self.flush()
        self.rejects.finish()
        if self.state:
            if self.state.has_dropped and isinstance(self.done, PartFile):
                self.done.compact(self.state.stale())
                self.state.compact()
                self.state.close()
                roll_forward(self.done.target)
            self.state.close()
        self.done.finish()
