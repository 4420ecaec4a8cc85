"""What an earlier run of the same output has done: the state file behind `--resume`.

The file is JSONL. Its first line holds the fingerprint (hashes of model, labels and thresholds) and
the rejects file; every other line, appended after the output that it names, records one input:

    {"key", "stamp", "status", "end"}  status: done or rejected; end: in the output or the rejects
    {..., "drops": N}                  in place of line N, counted from 0 after the first

An entry takes the place of another in one line, so that no crash can part the two. Only when a run
is complete, output and state lose what was dropped: see `compact`.
"""

import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from ramctl.errors import RunProblem
from ramctl.records.files import (
    STATE,
    kept_path,
    move_into_place,
    open_to_append,
    part_path,
    replacing,
    state_path,
)
from ramctl.records.record import JsonObject

Status = Literal["done", "rejected"]
FORMAT = 1
_START_OVER = "run without --resume to start over"
_SHORTEST = 32  # bytes of a line, at the least
_WRITTEN, _DROPPED, _TAKEN = 1, 2, 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded input, by its row; `end` is where its line ends in the output or the rejects."""

    row: int
    status: Status
    stamp: str
    end: int
    is_written: bool  # the file of its status has a line for it, unless there was no such file


def recorded_fingerprint(output: Path) -> dict[str, str]:
    """The fingerprint in the state of an output; empty where there is none."""
    path = state_path(output)
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        head: JsonObject = parsed(next(lines, b"")) or {}
    return dict(head.get("fingerprint", {}))


class OtherRun(RunProblem):
    """An output is that of another command, or depends on something else now."""

    def __init__(self, state: Path, what: str) -> None:
        remedy = f"write to another file, or {_START_OVER}"
        super().__init__(f"{state}: the earlier part was made with another {what}; {remedy}")
        self.what = what


class ResumeState:
    """Earlier entries, which `index` looks up by input key; new ones are appended.

    `rejects` is the rejects file of this run, if there is one; `n_header` are the output's bytes
    before the first record.
    """

    def __init__(
        self, path: Path, command: str, fingerprint: Mapping[str, str],
        rejects: Path | None = None, n_header: int = 0,
    ) -> None:  # fmt: skip
        self._path = path
        self._head: JsonObject = {
            "format": FORMAT, "command": command, "fingerprint": dict(fingerprint),
            "rejects": None if rejects is None else os.path.abspath(rejects),  # noqa: PTH100
            "header": n_header,
        }  # fmt: skip
        self.index = RowIndex()
        self._pending: list[bytes] = []
        self._size = 0
        self.ends: dict[Status, int] = {"done": n_header, "rejected": 0}
        self.continues_rejects = True  # the rejects file is that of the earlier run

    def start(self, say: Callable[[str], None] = lambda message: None) -> None:
        """Begin a new state and discard an older one; `say` is told of what was unfinished."""
        part = part_path(self._path.with_name(self._path.name.removesuffix(STATE)))
        if part.exists() and self._path.exists():
            number = sum("drops" not in row for _, row in read_rows(self._path))
            lost = f"an unfinished run, of {number} records, is discarded"
            say(f"{part}: {lost} (--resume would have continued it)")
        kept_path(self._path).unlink(missing_ok=True)
        self._size = self._write(self._path, [])

    def _write(self, path: Path, rows: Iterable[bytes]) -> int:
        """Write a whole state so that no reader sees half of it; the bytes that it has."""
        with replacing(path) as stream:
            stream.write(orjson.dumps(self._head) + b"\n")
            stream.writelines(rows)
            return stream.tell()

    def load(self, n_output_bytes: int, n_reject_bytes: int = 0) -> None:
        """Read the earlier state of an output and a rejects file that now have so many bytes.

        Entries beyond the output's end are forgotten; rejects that are not in the rejects file
        become unwritten. Raises RunProblem when the state belongs to another command, model, label
        system or thresholds.
        """
        self._size = self._path.stat().st_size if self._path.exists() else 0
        if not self._size:
            if n_output_bytes:
                why = "not found, so --resume cannot tell what is done"
                raise RunProblem(f"{self._path}: {why}; {_START_OVER}")
            self.start()
            return
        with self._path.open("rb") as stream:
            old_head = stream.readline()
        n_valid = self._take_head(old_head, n_reject_bytes)
        head = orjson.dumps(self._head) + b"\n"
        self.index = RowIndex(self._size, len(head))
        is_changed = head != old_head
        try:
            for line, row, was_unwritten in self._valid_rows(n_output_bytes, n_valid):
                status: Status = row["status"]
                self.index.add(row["key"], line, is_written=row["end"] > self.ends[status])
                self.ends[status] = row["end"]
                if "drops" in row:
                    self.index.drop(row["drops"])
                is_changed |= was_unwritten
        except (LookupError, TypeError) as error:
            why = f"line {len(self.index) + 2} is none of a state"
            raise RunProblem(f"{self._path}: {why}; {_START_OVER}") from error
        if is_changed or self._size != self.index.n_bytes:
            rows = self._valid_rows(n_output_bytes, n_valid)
            self._size = self._write(self._path, (line for line, *_ in rows))
        self.index.open(self._path)

    def _valid_rows(
        self, n_output: int, n_rejects: int | None
    ) -> Iterator[tuple[bytes, JsonObject, bool]]:
        """The lines and rows that count, and whether a row's reject has become unwritten."""
        written = 0  # bytes of the rejects file that count
        for line, row in read_rows(self._path):
            if row["status"] == "done":
                if row["end"] > n_output:
                    return
            elif n_rejects is not None and row["end"] > n_rejects:
                row["end"] = written
                yield orjson.dumps(row) + b"\n", row, True
                continue
            else:
                written = row["end"]
            yield line, row, False

    def _take_head(self, line: bytes, n_reject_bytes: int) -> int | None:
        """Check the first line; the bytes of the rejects file that count, None: as recorded."""
        head = parsed(line) or {}
        if head.get("format") != FORMAT or head.get("command") != self._head["command"]:
            raise OtherRun(self._path, "command or version")
        old, new = head.get("fingerprint", {}), self._head["fingerprint"]
        changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        if changed:
            raise OtherRun(self._path, ", ".join(changed))
        self._head["header"] = self.ends["done"] = head.get("header", 0)
        recorded = head.get("rejects")
        if self._head["rejects"] is None:
            self._head["rejects"] = recorded
            return None
        self.continues_rejects = self._head["rejects"] == recorded
        return n_reject_bytes if self.continues_rejects else 0

    def prune(self, is_gone: Callable[[str], bool]) -> int:
        """Drop the entries of inputs that were not taken and are gone; how many these are."""
        n_pruned = 0
        for number, (_, row) in enumerate(islice(read_rows(self._path), len(self.index))):
            if self.index.is_left(number) and is_gone(row["key"]):
                self.index.drop(number)
                n_pruned += 1
        return n_pruned

    def drop_doubled(self) -> int:
        """Drop the entries of places that the input has no more, whose content came at another one.

        Returns how many of such places there are whose content did not come at all.
        """
        gone: dict[str, list[int]] = {}
        if any(map(self.index.is_left, range(len(self.index)))):
            for number, (_, row) in enumerate(islice(read_rows(self._path), len(self.index))):
                if self.index.is_left(number) and row["key"].isdecimal():
                    gone.setdefault(row["stamp"], []).append(number)
        if gone:
            for number, (_, row) in enumerate(read_rows(self._path)):
                is_earlier = number < len(self.index)
                if is_earlier and (self.index.is_left(number) or self.index.is_dropped(number)):
                    continue
                for double in gone.pop(row["stamp"], ()):
                    self.index.drop(double)
        return sum(map(len, gone.values()))

    def add(
        self, key: str, stamp: str, status: Status, end: int, drops: Entry | None = None
    ) -> None:
        """Record an input, in place of an earlier entry of it; written at the next `flush`."""
        row: JsonObject = {"key": key, "stamp": stamp, "status": status, "end": end}
        if drops is not None:
            row["drops"] = drops.row
            self.index.drop(drops.row)
        self._pending.append(orjson.dumps(row) + b"\n")

    def flush(self) -> None:
        """Append the pending entries; call after flushing the outputs that they name."""
        if not self._pending:
            return
        content = b"".join(self._pending)
        try:
            with open_to_append(self._path) as stream:
                stream.write(content)
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                os.truncate(self._path, self._size)
            raise RunProblem(f"{self._path}: {error.strerror or error}") from error
        self._size += len(content)
        self._pending.clear()

    def _spans(self) -> Iterator[tuple[JsonObject, int, bool]]:
        """The rows of the file, where each begins in its output, and whether it was dropped."""
        starts: dict[Status, int] = {"done": self._head["header"], "rejected": 0}
        for number, (_, row) in enumerate(read_rows(self._path)):
            start, starts[row["status"]] = starts[row["status"]], row["end"]
            yield row, start, self.index.is_dropped(number)

    def stale(self, status: Status) -> Iterator[tuple[int, int]]:
        """The bytes of what was dropped in the file of a status, in order."""
        for row, start, is_dropped in self._spans():
            if is_dropped and row["status"] == status and row["end"] > start:
                yield start, row["end"]

    def compact(self) -> None:
        """Leave out what was dropped, once each output has a compacted copy, `FILE.part.kept`.

        From the moment that the new state is there, under the name `STATE.kept`, the copies count;
        a crash before it leaves everything as it was, and one after it is mended by `roll_forward`.
        """
        removed: dict[Status, int] = {"done": 0, "rejected": 0}

        def kept_rows() -> Iterator[bytes]:
            for row, start, is_dropped in self._spans():
                status: Status = row["status"]
                if is_dropped:
                    removed[status] += row["end"] - start
                    continue
                row.pop("drops", None)
                row["end"] -= removed[status]
                yield orjson.dumps(row) + b"\n"

        self._write(kept_path(self._path), kept_rows())
        self.index = RowIndex()


def roll_forward(output: Path) -> None:
    """Put compacted copies of an output and its rejects in place, if their state was written."""
    state = state_path(output)
    kept = kept_path(state)
    if not kept.exists():
        return
    with kept.open("rb") as lines:
        head = parsed(next(lines, b"")) or {}
    files = [output, *([Path(head["rejects"])] if head.get("rejects") else [])]
    for part in map(part_path, files):
        if kept_path(part).exists():
            move_into_place(kept_path(part), part)
    move_into_place(kept, state)


def parsed(line: bytes) -> JsonObject | None:
    """The object of a whole line; None for one that a crash has torn."""
    try:
        row = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> Iterator[tuple[bytes, JsonObject]]:
    """The lines of a state after its first, with their objects, up to one that is torn."""
    with path.open("rb") as stream:
        stream.readline()
        for line in stream:
            if (row := parsed(line)) is None:
                return
            yield line, row


class RowIndex:
    """Finds the rows of a state file by their keys; they stay in the file, 17 bytes of each here.

    The hash of a key and the row share a number, hash first: sorted, they are sorted by key, and
    rows of one key keep their order. `n_bytes` are the file's, `start` those of its first line.
    """

    def __init__(self, n_bytes: int = 0, start: int = 0) -> None:
        self._row_mask = (1 << (n_bytes // _SHORTEST).bit_length()) - 1
        self._hash_mask = (1 << 64) - 1 - self._row_mask
        self._keys = array("Q")
        self._offsets = array("Q")
        self._flags = bytearray()
        self._stream: BinaryIO | None = None
        self.n_bytes = start
        self.n_dropped = 0

    def __len__(self) -> int:
        return len(self._flags)

    def add(self, key: str, line: bytes, *, is_written: bool) -> None:
        """Add the next row; all come before the first `take`."""
        self._keys.append(hash(key) & self._hash_mask | len(self._flags))
        self._offsets.append(self.n_bytes)
        self._flags.append(_WRITTEN if is_written else 0)
        self.n_bytes += len(line)

    def open(self, path: Path) -> None:
        """Look rows up in this file from now on."""
        import numpy as np

        np.frombuffer(self._keys, np.uint64).sort()
        self._stream = path.open("rb")

    def close(self) -> None:
        """Look nothing up any more."""
        if self._stream is not None:
            self._stream.close()

    def take(self, key: str) -> Entry | None:
        """The first row of this key that is neither dropped nor taken before."""
        wanted = hash(key) & self._hash_mask
        place, jump = bisect_left(self._keys, wanted), None  # jump: a row that leads to `place`
        while place < len(self) and self._keys[place] & self._hash_mask == wanted:
            number = self._keys[place] & self._row_mask
            if self._flags[number] & _TAKEN:
                place = self._offsets[number]  # no longer of the file: past rows that were taken
                jump = number if jump is None else jump
                self._offsets[jump] = place
                continue
            row = self._read(number) if self.is_left(number) else {}
            place, jump = place + 1, None
            if row.get("key") == key:
                is_written = bool(self._flags[number] & _WRITTEN)
                self._flags[number] |= _TAKEN
                self._offsets[number] = place
                return Entry(number, row["status"], row["stamp"], row["end"], is_written)
        return None

    def _read(self, number: int) -> JsonObject:
        assert self._stream is not None
        self._stream.seek(self._offsets[number])
        return parsed(self._stream.readline()) or {}

    def drop(self, number: int) -> None:
        """Have a row count no more."""
        self.n_dropped += not self.is_dropped(number)
        self._flags[number] |= _DROPPED

    def is_left(self, number: int) -> bool:
        """Whether a row was neither dropped nor taken."""
        return not self._flags[number] & (_DROPPED | _TAKEN)

    def is_dropped(self, number: int) -> bool:
        """Whether a row was dropped; one that came after the last `add` was not."""
        return number < len(self) and bool(self._flags[number] & _DROPPED)
