"""What an earlier run of the same output has done: the state file behind `--resume`.

The file is JSONL. Its first line holds the fingerprint (hashes of model, labels and thresholds) and
the rejects file; every other line, appended after the output that it names, records one input:

    {"key", "stamp", "status", "end"}  status: done or rejected; end: in the output or the rejects
    {..., "code", "message"}           of a reject, which has no bytes where there is no file
    {..., "drops": N}                  in place of line N, counted from 0 after the first

An entry takes the place of another in one line, so that no crash can part the two. Only when a run
is complete, output and state lose what was dropped: see `compact`.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import orjson

from ramctl.errors import RunProblem
from ramctl.records.entries import RowIndex, parsed, read_rows
from ramctl.records.files import (
    STATE,
    kept_path,
    move_into_place,
    part_path,
    replacing,
    state_path,
    sync_file,
)
from ramctl.records.locks import Say
from ramctl.records.record import JsonObject, Record

Status = Literal["done", "rejected"]
Range = tuple[int, int]
Problem = tuple[str, str]  # code and message of a reject
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded input, by its row; `end` is where its line ends in the output or the rejects."""

    row: int
    status: Status
    stamp: str
    end: int
    is_written: bool  # the file of its status has a line for it
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """What `--resume` asks about the photos behind an earlier run's records."""

    is_gone: Callable[[str], bool]  # whether no photo has the name in a key any more
    prune: bool = False  # drop the records of those that are gone
    by_content: bool = False  # stamps are of content: a record moves to the photo's new name
    # Whether what stands beside a photo is missing, by its record and what gives its output.
    lacks: Callable[[Record, Callable[[], JsonObject]], bool] = lambda record, known: False


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
        remedy = "write to another file, or run without --resume to start over"
        super().__init__(f"{state}: the earlier part was made with another {what}; {remedy}")
        self.what = what


class ResumeState:
    """Looks up earlier entries by input key and appends new ones.

    `rejects` is the rejects file of this run, if there is one; `n_header` are the output's bytes
    before the first record. With `by_stamp` entries are found by their stamps too.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        fingerprint: Mapping[str, str],
        rejects: Path | None = None,
        n_header: int = 0,
        *,
        by_stamp: bool = False,
    ) -> None:
        self._path = path
        self._head: JsonObject = {
            "format": FORMAT, "command": command, "fingerprint": dict(fingerprint),
            "rejects": None if rejects is None else os.path.abspath(rejects),  # noqa: PTH100
            "header": n_header,
        }  # fmt: skip
        self._index = RowIndex()
        self._stamps = RowIndex() if by_stamp else None
        self._pending: list[bytes] = []
        self._size = 0
        self.ends: dict[Status, int] = {"done": n_header, "rejected": 0}
        self.continues_rejects = True  # the rejects file is that of the earlier run

    def start(self, say: Say = lambda message: None) -> None:
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
                raise RunProblem(
                    f"{self._path}: not found, so --resume cannot tell what is done; "
                    "run without --resume to start over"
                )
            self.start()
            return
        with self._path.open("rb") as stream:
            old_head = stream.readline()
        n_valid = self._take_head(old_head, n_reject_bytes)
        head = orjson.dumps(self._head) + b"\n"
        self._index = RowIndex(self._size, len(head))
        if self._stamps is not None:
            self._stamps = RowIndex(self._size, len(head), field="stamp")
        is_changed = head != old_head
        try:
            for line, row, was_unwritten in self._valid_rows(n_output_bytes, n_valid):
                self._add_earlier(line, row)
                is_changed |= was_unwritten
        except (LookupError, TypeError) as error:
            raise RunProblem(
                f"{self._path}: line {len(self._index) + 2} is none of a state; "
                "run without --resume to start over"
            ) from error
        if is_changed or self._size != self._index.n_bytes:
            rows = self._valid_rows(n_output_bytes, n_valid)
            self._size = self._write(self._path, (line for line, *_ in rows))
        for index in self._indexes:
            index.open(self._path)

    @property
    def _indexes(self) -> list[RowIndex]:
        return [self._index] if self._stamps is None else [self._index, self._stamps]

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

    def _add_earlier(self, line: bytes, row: JsonObject) -> None:
        status: Status = row["status"]
        is_written = row["end"] > self.ends[status]
        self._index.add(row["key"], line, is_written=is_written)
        if self._stamps is not None:
            self._stamps.add(row["stamp"], line, is_written=is_written)
        self.ends[status] = row["end"]
        if "drops" in row:
            self._index.drop(row["drops"])

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
        mine, theirs = self._head["rejects"], head.get("rejects")
        if mine is None:
            self._head["rejects"] = theirs
            return None
        self.continues_rejects = mine == theirs or "rejects" not in head
        return n_reject_bytes if self.continues_rejects else 0

    def take(self, key: str) -> Entry | None:
        """The earlier entry of this input; a repeated input takes one entry each time."""
        found = self._index.take(key)
        if found is None:
            return None
        return self._entry(*found)

    def take_renamed(self, stamp: str, is_gone: Callable[[str], bool]) -> Entry | None:
        """The entry of an input of the same content that is done, and whose key is gone."""
        while self._stamps is not None and (found := self._stamps.take(stamp)) is not None:
            number, row = found
            is_done = row["status"] == "done" and self._index.is_left(number)
            if is_done and is_gone(row["key"]):
                return self._entry(number, row)
        return None

    def prune(self, is_gone: Callable[[str], bool]) -> int:
        """Drop the entries of inputs that were not taken and are gone; how many these are."""
        n_pruned = 0
        for number, (_, row) in enumerate(islice(read_rows(self._path), len(self._index))):
            if self._index.is_left(number) and is_gone(row["key"]):
                self._index.drop(number)
                n_pruned += 1
        return n_pruned

    def drop_doubled(self) -> int:
        """Drop the entries of places that the input has no more, whose content came at another one.

        Returns how many of such places there are whose content did not come at all.
        """
        gone: dict[str, list[int]] = {}
        if any(map(self._index.is_left, range(len(self._index)))):
            for number, (_, row) in enumerate(islice(read_rows(self._path), len(self._index))):
                if self._index.is_left(number) and row["key"].isdecimal():
                    gone.setdefault(row["stamp"], []).append(number)
        if gone:
            for number, (_, row) in enumerate(read_rows(self._path)):
                is_earlier = number < len(self._index)
                if is_earlier and (self._index.is_left(number) or self._index.is_dropped(number)):
                    continue
                for double in gone.pop(row["stamp"], ()):
                    self._index.drop(double)
        return sum(map(len, gone.values()))

    def _entry(self, number: int, row: JsonObject) -> Entry:
        problem = (row["code"], row["message"]) if "code" in row else None
        is_written = self._index.is_written(number)
        return Entry(number, row["status"], row["stamp"], row["end"], is_written, problem)

    def add(
        self,
        key: str,
        stamp: str,
        status: Status,
        end: int,
        *,
        problem: Problem | None = None,
        drops: Entry | None = None,
    ) -> None:
        """Record an input, in place of an earlier entry of it; written at the next `flush`."""
        row: JsonObject = {"key": key, "stamp": stamp, "status": status, "end": end}
        if problem is not None:
            row |= {"code": problem[0], "message": problem[1]}
        if drops is not None:
            row["drops"] = drops.row
            self._index.drop(drops.row)
        self._pending.append(orjson.dumps(row) + b"\n")

    def flush(self) -> None:
        """Append the pending entries; call after flushing the outputs that they name."""
        if not self._pending:
            return
        content = b"".join(self._pending)
        try:
            with self._path.open("ab") as stream:
                stream.write(content)
        except OSError as error:
            with suppress(OSError):  # half a line would spoil the next one
                os.truncate(self._path, self._size)
            raise RunProblem(f"{self._path}: {error.strerror or error}") from error
        self._size += len(content)
        self._pending.clear()

    @property
    def has_dropped(self) -> bool:
        """Whether the outputs hold lines that are to be left out when they are complete."""
        return self._index.n_dropped > 0

    def _spans(self) -> Iterator[tuple[JsonObject, int, bool]]:
        """The rows of the file, where each begins in its output, and whether it was dropped."""
        starts: dict[Status, int] = {"done": self._head["header"], "rejected": 0}
        for number, (_, row) in enumerate(read_rows(self._path)):
            start, starts[row["status"]] = starts[row["status"]], row["end"]
            yield row, start, self._index.is_dropped(number)

    def stale(self, status: Status) -> Iterator[Range]:
        """The bytes of what was dropped in the file of a status, in order."""
        for row, start, is_dropped in self._spans():
            if is_dropped and row["status"] == status and row["end"] > start:
                yield start, row["end"]

    @property
    def loses_first(self) -> bool:
        """Whether the output's first line is among what is to be left out."""
        n_header: int = self._head["header"]
        return next(self.stale("done"), (-1, 0))[0] == n_header

    def compact(self, n_lead: int = 0) -> None:
        """Leave out what was dropped, once each output has a compacted copy, `FILE.part.kept`.

        In that of the output the first line has become longer by `n_lead` bytes.
        From the moment that the new state is there, under the name `STATE.kept`, the copies count;
        a crash before it leaves everything as it was, and one after it is mended by `roll_forward`.
        """
        self._write(kept_path(self._path), self._kept_rows(n_lead))
        self._index = RowIndex()

    def _kept_rows(self, n_lead: int) -> Iterator[bytes]:
        removed: dict[Status, int] = {"done": -n_lead, "rejected": 0}
        for row, start, is_dropped in self._spans():
            status: Status = row["status"]
            if is_dropped:
                removed[status] += row["end"] - start
                continue
            row.pop("drops", None)
            row["end"] -= removed[status]
            yield orjson.dumps(row) + b"\n"

    def close(self) -> None:
        """Look up no earlier entries any more."""
        for index in self._indexes:
            index.close()

    def sync(self) -> None:
        """Have the state on the disk."""
        sync_file(self._path)


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
