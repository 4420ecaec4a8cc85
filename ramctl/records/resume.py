"""The output of a run, and `.FILE.done`, by which `--resume` continues it.

`-o FILE` grows as `FILE.part`, which is renamed to FILE when it is complete. `.FILE.done` lists
what is in it: the first line says what made the file; each other line, appended after the line that
it describes, is `[key, stamp, end, checksum]` of an input: its name or place, what changes with
its content, where its line ends, and the CRC-32 of that line. It describes FILE.part where there is
one, else FILE. Inputs are done as far as the checksums fit, so that it does not matter at which
write a run was killed, nor which blocks a power cut has lost.
"""

import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

import orjson

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import hidden_path, is_device, lock, move_into_place, naming, replacing

STDOUT = Path("standard output")
START_OVER = "run without --resume to start over"


class _Entry(NamedTuple):
    stamp: str
    row: int  # in the list of what is done


class Output:
    """A stream that lines are written to: standard output, a pipe or a device."""

    def __init__(self, stream: BinaryIO, path: Path = STDOUT) -> None:
        self._stream, self._path = stream, path

    def has(self, key: str, stamp: str) -> bool:
        """Whether an earlier run has written the line of this input, which has not changed."""
        return False

    def write(self, line: bytes, key: str = "", stamp: str = "") -> None:
        """Write the line of an input, or (without a key) of a header or footer."""
        with naming(self._path):
            self._stream.write(line)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        with naming(self._path):
            self._stream.flush()

    def finish(self) -> None:
        """Give a complete file its name."""


class FileOutput(Output):
    """FILE, new or, with `resume`, as an earlier run with the same `made_by` left it."""

    def __init__(self, path: Path, made_by: Mapping[str, str], header: bytes, *, resume: bool):
        self._file, self._made_by, self._header = path.resolve(), made_by, header
        self._part = self._file.with_name(self._file.name + ".part")
        self._path = path  # for messages
        self._earlier: defaultdict[str, list[_Entry]] = defaultdict(list)
        self._came: set[str] = set()  # keys of this run
        self._rows: list[bytes] = []
        self._end = len(header)  # of what is written
        self._is_open = False
        with naming(path):
            self._done = hidden_path(self._file, ".done").open("a+b")
            lock(self._done.fileno(), path)
            if not (resume and self._load()):
                self._start()

    def _start(self) -> None:
        """Begin a new file and a new list."""
        self._stream, self._is_open = self._part.open("wb"), True
        self._done.truncate(0)  # after the part, which it describes from now on
        self._done.write(orjson.dumps(self._made_by) + b"\n")
        self._done.flush()
        self._stream.write(self._header)

    def _load(self) -> bool:
        """Find what is done; False where nothing is. Problems where FILE is another run's."""
        self._done.seek(0)
        first = self._done.readline()
        file = self._part if self._part.exists() else self._file
        before = None  # no list, or one lost in a power cut
        with suppress(ValueError):
            before = orjson.loads(first)
        if before is None:
            if file is self._file and file.exists():
                raise RunProblem(
                    f"{self._path}: there is no list of what is done in it; {START_OVER}"
                )
            return False
        names = sorted(before.keys() | self._made_by.keys())
        if other := [name for name in names if before.get(name) != self._made_by.get(name)]:
            if not self._done.readline() and not (
                self._file.exists() and self._file.stat().st_size
            ):
                return False  # there is no record yet
            remedy = f"write to another file, or {START_OVER}"
            raise UsageProblem(f"{self._path}: was made with another {', '.join(other)}; {remedy}")
        if not file.exists():
            return False
        with file.open("rb") as content:
            if content.read(len(self._header)) != self._header:
                return False
            n_bytes = len(first)
            for row, line in enumerate(self._done):
                if (entry := _entry(line, content, self._end)) is None:
                    break
                key, stamp, self._end = entry
                self._earlier[key].append(_Entry(stamp, row))
                n_bytes += len(line)
        if file is self._file and self._end != file.stat().st_size:
            raise RunProblem(f"{self._path}: was changed by another program; {START_OVER}")
        self._done.truncate(n_bytes)
        if file is self._part:
            self._open()
        return True

    def _open(self) -> None:
        """Go on at the end of the part, which is at first a copy of FILE."""
        if not self._part.exists():
            with self._file.open("rb") as complete, replacing(self._part) as copy:
                shutil.copyfileobj(complete, copy)
        self._stream, self._is_open = self._part.open("r+b"), True
        self._stream.truncate(self._end)
        self._stream.seek(self._end)

    def has(self, key: str, stamp: str) -> bool:
        self._came.add(key)
        entries = self._earlier.get(key, [])
        same = next((entry for entry in entries if entry.stamp == stamp), None)
        if same is not None:
            entries.remove(same)
        return same is not None

    def write(self, line: bytes, key: str = "", stamp: str = "") -> None:
        if not self._is_open:
            with naming(self._path):
                self._open()
        super().write(line)
        self._end += len(line)
        if key:
            self._rows.append(orjson.dumps([key, stamp, self._end, crc32(line)]) + b"\n")

    def flush(self) -> None:
        with naming(self._path):
            if self._is_open:
                self._stream.flush()
                self._done.writelines(self._rows)  # last, so that it never lists a lost line
                self._done.flush()
                self._rows.clear()

    def finish(self) -> None:
        """Leave out the lines of changed and removed inputs, and rename the part to FILE.

        An input of a list that is at no place of this list is removed; a photo that was not among
        the inputs stays.
        """
        self.flush()
        stale = {
            entry.row
            for key, entries in self._earlier.items()
            if key in self._came or key.isdecimal()
            for entry in entries
        }
        with naming(self._path):
            if stale:
                self._leave_out(stale)
            if self._is_open or stale:
                os.fsync(self._done.fileno())
                move_into_place(self._part, self._file)

    def _leave_out(self, stale: set[int]) -> None:
        """Write the part and the list anew without these rows."""
        self._done.seek(0)
        first, *rows = self._done.readlines()
        with (self._part if self._is_open else self._file).open("rb") as old:
            kept, end, old_end = list[bytes](), len(self._header), len(self._header)
            with replacing(self._part) as new:
                new.write(old.read(old_end))
                for row, line in enumerate(rows):
                    key, stamp, next_end, checksum = orjson.loads(line)
                    content, old_end = old.read(next_end - old_end), next_end
                    if row not in stale:
                        end += len(content)
                        new.write(content)
                        kept.append(orjson.dumps([key, stamp, end, checksum]) + b"\n")
        self._done.truncate(0)
        self._done.writelines([first, *kept])
        self._done.flush()

    def close(self) -> None:
        """Close the files; what is not finished can be continued."""
        with self._done:
            if self._is_open:
                self.flush()
                self._stream.close()


def _entry(line: bytes, content: BinaryIO, start: int) -> tuple[str, str, int] | None:
    """Key, stamp and end of a row, if its line from `start` on is in the file as it was written."""
    try:
        key, stamp, end, checksum = orjson.loads(line)
        is_whole = line.endswith(b"\n") and end >= start
        return (
            (key, stamp, end) if is_whole and crc32(content.read(end - start)) == checksum else None
        )
    except (ValueError, TypeError):
        return None


@contextmanager
def open_output(
    path: Path | None, made_by: Mapping[str, str], header: bytes, *, resume: bool
) -> Iterator[Output]:
    """The output `path` of a run, None for standard output, with its header."""
    if path is not None and not is_device(path):
        output = FileOutput(path, made_by, header, resume=resume)
        try:
            yield output
        finally:
            output.close()
        return
    if resume:
        raise UsageProblem("--resume needs -o FILE: only a file can be continued")
    with records_to_stdout() if path is None else replacing(path) as stream:
        plain = Output(stream, path or STDOUT)
        plain.write(header)
        yield plain
        plain.flush()


@contextmanager
def records_to_stdout() -> Iterator[BinaryIO]:
    """Standard output as bytes; meanwhile what libraries print goes to stderr."""
    stream = sys.stdout.buffer
    with redirect_stdout(sys.stderr):
        yield stream
    with naming(STDOUT):
        stream.flush()


def write_to_stdout(text: str) -> None:
    """Write text to standard output."""
    with records_to_stdout() as stream:
        stream.write(text.encode())
