"""The output and rejects of a run, and the state by which `--resume` continues them."""

import errno
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import (
    Notify,
    create,
    is_device,
    is_gzip,
    kept_path,
    move_into_place,
    naming,
    open_device,
    open_to_append,
    output_lock,
    packing,
    part_path,
    replacing,
    state_path,
    sync_file,
)
from ramctl.records.inputs import open_input
from ramctl.records.ownership import require_our_outputs
from ramctl.records.state import (
    START_OVER,
    Entry,
    ResumeState,
    Status,
    rename_old_state,
    roll_forward,
)


class Sink:
    """Standard output, a pipe, a device, or nothing, to which lines are written."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self.end = 0  # bytes written

    def write(self, data: bytes) -> int:
        """Append data; return the offset after it."""
        if self._stream is not None:
            self._stream.write(data)
            self.end += len(data)
        return self.end

    def flush(self) -> None:
        """Hand everything to the operating system."""
        if self._stream is not None:
            self._stream.flush()

    def cut(self, end: int) -> None:
        """Drop everything after byte `end`, which a killed run wrote but did not record."""
        self.end = end

    def compact(self, stale: Iterator[tuple[int, int]]) -> None:
        """Write a copy of the file, without these ranges, beside it."""

    def close(self) -> None:
        """Close a file that stays unfinished, to be continued."""

    def finish(self) -> None:
        """Give the file its name."""


class PartFile(Sink):
    """An output that grows as `FILE.part` and is renamed to FILE when complete.

    With `resume` an unfinished part is continued, else a copy of FILE, made at the first write. The
    part of FILE.gz is not compressed, so that it can be cut at any byte. RunProblem where it cannot
    be written.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        super().__init__()
        self.path = path
        self.part = part_path(path)
        if resume:
            self._source = self.part if self.part.exists() else path
            self.end = unfinished_bytes(path)
        else:
            self._source = self.part
            kept_path(self.part).unlink(missing_ok=True)
            with naming(self.part):
                self._stream = create(self.part)

    def cut(self, end: int) -> None:
        if end < self.end:
            self.end = end
            self._open()

    def write(self, data: bytes) -> int:
        if self._stream is None:
            self._open()
        try:  # not `naming`, which would cost a microsecond a record
            return super().write(data)
        except OSError as error:
            raise RunProblem(f"{self.part}: {error.strerror or error}") from error

    def flush(self) -> None:
        with naming(self.part):
            super().flush()

    def _open(self) -> None:
        with naming(self.part):
            if self._source == self.path and self.path.exists():
                self._copy([])
                kept_path(self.part).replace(self.part)
            self._source = self.part
            self._stream = open_to_append(self.part)
            self._stream.truncate(self.end)

    def close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            with naming(self.part):
                stream.close()

    def compact(self, stale: Iterator[tuple[int, int]]) -> None:
        kept_path(self.part).unlink(missing_ok=True)  # of a killed run
        first = next(stale, None)
        if first is not None:
            self.close()
            with naming(self.part):
                self._copy(chain([first], stale))

    def finish(self) -> None:
        self.close()
        with naming(self.part):
            if self.part.exists():
                whole = self.part
                if is_gzip(self.path.name):
                    whole = kept_path(self.part)
                    with (
                        self.part.open("rb") as source,
                        create(whole) as target,
                        packing(self.path.name, target) as stream,
                    ):
                        shutil.copyfileobj(source, stream, 1 << 20)
                sync_file(whole)
                move_into_place(whole, self.path)
                self.part.unlink(missing_ok=True)

    def _copy(self, stale: Iterable[tuple[int, int]]) -> None:
        """Copy the content to `FILE.part.kept`, without the ranges, which are in order."""
        with (
            open_input(str(self._source.absolute())) as source,
            create(kept_path(self.part)) as target,
        ):
            for start, end in chain(stale, [(self.end, self.end)]):
                while block := source.read(min(start - source.tell(), 1 << 20)):
                    target.write(block)
                source.seek(end)
            target.flush()
            os.fsync(target.fileno())


def rejects_file(name: str | None) -> Path | None:
    """The file of `--rejects`; None for `-`, which is stderr."""
    return None if name in (None, "-") else Path(name)


def unfinished_bytes(path: Path | None) -> int:
    """Bytes of content in the part of a file, else in the file; 0 where neither exists."""
    files = [] if path is None else [file for file in (part_path(path), path) if file.is_file()]
    if not (files and is_gzip(files[0].name)):
        return files[0].stat().st_size if files else 0
    with open_input(str(files[0])) as stream:
        return stream.seek(0, os.SEEK_END)


def open_rejects(name: str | None, *, resume: bool) -> Sink:
    """The sink for rejects: a file, `-` for stderr, or nowhere."""
    path = rejects_file(name)
    if path is None:
        return Sink(sys.stderr.buffer if name else None)
    return Sink(open_device(path)) if is_device(path) else PartFile(path, resume=resume)


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
    with naming(Path("standard output")):
        os.write(descriptor, b"")  # fails now where it is closed, not hours later
    private = os.dup(descriptor)
    os.dup2(sys.stderr.fileno(), descriptor)
    try:
        with redirect_stdout(sys.stderr), os.fdopen(os.dup(private), "wb") as stream:
            try:
                yield stream
                stream.flush()
            except OSError as error:
                # The stream now leads to the null device, so that closing it cannot fail again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
                    raise RunProblem(f"standard output: {error.strerror}") from error
                raise
    finally:
        os.dup2(private, descriptor)
        os.close(private)


def write_to_stdout(text: str) -> None:
    """Write text to standard output; file names that are not UTF-8 keep their bytes."""
    with records_to_stdout() as stream:
        stream.write(os.fsencode(text))


@contextmanager
def open_outputs(
    output: Path | None, rejects: str | None, *,
    resume: bool, command: str, fingerprint: Mapping[str, str], n_header: int, notify: Notify,
    has_records: bool = True,
) -> Iterator["RunOutputs"]:  # fmt: skip
    """Lock and open the outputs of a run; with `resume` at the end of the recorded entries."""
    rejects_path = rejects_file(rejects)
    require_our_outputs(output, rejects_path)
    with ExitStack() as stack:
        stack.enter_context(output_lock(output, rejects_path, notify=notify))
        state: ResumeState | None = None
        if output is None or is_device(output):
            if resume:
                raise UsageProblem("--resume needs -o FILE: only a file can be continued")
            opened = replacing(output) if output else records_to_stdout()
            done = Sink(stack.enter_context(opened) if has_records else None)
        else:
            file = rejects_path if rejects_path and not is_device(rejects_path) else None
            rename_old_state(output)
            state = ResumeState(state_path(output), command, fingerprint, file, n_header)
            if resume:
                roll_forward(output)
            else:  # first, so that no crash leaves the old state beside a new part
                state.start(notify)
            done = PartFile(output, resume=resume)
            if resume:
                state.load(done.end, unfinished_bytes(file))
                if 0 < done.end != state.ends["done"] and not done.part.exists():
                    why = "was changed by another program, so --resume cannot find what is done"
                    raise RunProblem(f"{output}: {why}; {START_OVER}")
        continues = resume and state is not None and state.continues_rejects
        sinks: dict[Status, Sink]
        sinks = {"done": done, "rejected": open_rejects(rejects, resume=continues)}
        for status, end in state.ends.items() if resume and state else ():
            is_there = sinks[status].end >= end  # all of it, the header included
            sinks[status].cut(end if is_there or status == "rejected" else 0)
        yield RunOutputs(sinks, state, output)


@dataclass(slots=True)
class RunOutputs:
    """The output, rejects and state of a run.

    The state is written last, so that it never records lines that a crash has lost.
    """

    sinks: dict[Status, Sink]
    state: ResumeState | None = None  # of an output that is a file
    output: Path | None = None

    def earlier(self, key: str, stamp: str = "") -> Entry | None:
        """The entry of an earlier run for an input with this stamp."""
        return self.state.take(key, stamp) if self.state else None

    def write(
        self, status: Status, key: str, stamp: str, line: bytes, *, drops: Entry | None = None
    ) -> None:
        """Write the line of an input; `drops` is the earlier entry that it replaces."""
        end = self.sinks[status].write(line)
        if self.state:
            self.state.add(key, stamp, status, end, drops)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        for sink in self.sinks.values():
            sink.flush()
        if self.state:
            self.state.flush()

    def save(self) -> None:
        """Close the files, for `--resume` to continue."""
        self.flush()
        self.sinks["done"].close()
        if self.state:
            self.sinks["rejected"].close()
            self.state.close()
        else:
            self.sinks["rejected"].finish()

    def finish(self) -> None:
        """Give the files their names, without dropped lines."""
        self.flush()
        if self.state and self.output:
            if self.state.has_dropped:
                for status, sink in self.sinks.items():
                    sink.compact(self.state.stale(status))
                self.state.compact()
                roll_forward(self.output)
            self.state.close()
            sync_file(state_path(self.output))
        for sink in self.sinks.values():
            sink.finish()
