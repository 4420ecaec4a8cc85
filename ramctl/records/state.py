"""The state file of an output, in which `--resume` finds what an earlier run has done.

The file is JSONL. Its first line holds the fingerprint (hashes of model, labels and thresholds) and
the rejects file; every other line, appended after the output that it names, records one input:

    {"key", "stamp", "status", "end"}  status: done or rejected; end: in the output or the rejects
    {..., "drops": N}                  replaces line N, counted from 0 after the first

One line drops an entry and adds another, so that no crash can separate the two. When a run is
complete, `compact` removes dropped entries from output and state.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from ramctl.errors import RunProblem
from ramctl.records.files import (
    STATE,
    kept_path,
    move_into_place,
    old_state_path,
    open_to_append,
    part_path,
    present_state,
    replacing,
    state_path,
)
from ramctl.records.record import JsonObject

Status = Literal["done", "rejected"]
FORMAT = 1
START_OVER = "run without --resume to start over"
# The rows of an earlier run and of this one, in a temporary file: they may be many millions.
_PENDING, _TAKEN, _DROPPED = range(3)  # values of `mark`; rows of this run are taken
_TABLE = """
    CREATE TABLE rows (
        number INTEGER PRIMARY KEY, key TEXT, stamp TEXT, status TEXT, start INT, end INT, mark INT
    )
"""
# Pending rows only: else a look-up of a key would pass all its rows that are taken.
_INDEX = f"CREATE INDEX pending_by_key ON rows (key) WHERE mark = {_PENDING}"
_INSERT = "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)"
_STAMP_INDEX = (
    f"CREATE INDEX IF NOT EXISTS pending_by_stamp ON rows (stamp) WHERE mark = {_PENDING}"
)
_BY_KEY, _BY_STAMP = (
    "SELECT key, number, status, stamp, start, end FROM rows "
    f"WHERE {column} = ? AND mark = {_PENDING} ORDER BY number"
    for column in ("key", "stamp")
)
_MARK = "UPDATE rows SET mark = ? WHERE number = ?"
_IS_PENDING_PLACE = (
    f"mark = {_PENDING} AND key NOT GLOB '*[^0-9]*'"  # of a list, not a photo's name
)
_DROP_DOUBLED = f"""
    UPDATE rows SET mark = {_DROPPED}
    WHERE {_IS_PENDING_PLACE} AND stamp IN (SELECT stamp FROM rows WHERE mark = {_TAKEN})
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded input; `end` is the end of its line in the output or the rejects."""

    row: int
    status: Status
    stamp: str
    end: int
    is_written: bool  # it has a line in the file of its status


def recorded_fingerprint(output: Path) -> dict[str, str]:
    """The fingerprint in the state of an output; empty without a state."""
    path = present_state(output)
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        head: JsonObject = parsed(next(lines, b"")) or {}
    return dict(head.get("fingerprint", {}))


class OtherRun(RunProblem):
    """The output was made by another command, or with another model, labels or settings."""

    def __init__(self, state: Path, what: str) -> None:
        remedy = f"write to another file, or {START_OVER}"
        super().__init__(f"{state}: the earlier part was made with another {what}; {remedy}")
        self.what = what


class ResumeState:
    """The entries of an earlier run, looked up by `take`, and of this run, appended by `add`.

    `rejects` is the rejects file of this run; `n_header` is the number of bytes before the first
    record.
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
        self._rows: sqlite3.Connection | None = None  # None: there is no earlier run
        self._pending: list[bytes] = []
        self._size = 0
        self.ends: dict[Status, int] = {"done": n_header, "rejected": 0}
        self.continues_rejects = True  # the rejects file is that of the earlier run

    def start(self, notify: Callable[[str], None] = lambda message: None) -> None:
        """Begin a new state and discard an older one; `notify` reports an unfinished run."""
        part = part_path(self._path.with_name(self._path.name[1:].removesuffix(STATE)))
        if part.exists() and self._path.exists():
            number = sum("drops" not in row for _, row in read_rows(self._path))
            lost = f"an unfinished run, of {number} records, is discarded"
            notify(f"{part}: {lost} (--resume would have continued it)")
        kept_path(self._path).unlink(missing_ok=True)
        self._size = self._write(self._path, [])

    def _write(self, path: Path, rows: Iterable[bytes]) -> int:
        """Replace a state as a whole; return its number of bytes."""
        with replacing(path) as stream:
            stream.write(orjson.dumps(self._head) + b"\n")
            stream.writelines(rows)
            return stream.tell()

    def load(self, n_output_bytes: int, n_reject_bytes: int = 0) -> None:
        """Read the earlier state of an output and a rejects file of so many bytes.

        Entries beyond the end of the output are forgotten; rejects beyond the end of the rejects
        file count as unwritten. RunProblem if the command or the fingerprint differs.
        """
        self._size = self._path.stat().st_size if self._path.exists() else 0
        if not self._size:
            if n_output_bytes:
                why = "not found, so --resume cannot find what is done"
                raise RunProblem(f"{self._path}: {why}; {START_OVER}")
            self.start()
            return
        with self._path.open("rb") as stream:
            old_head = stream.readline()
        n_valid = self._take_head(old_head, n_reject_bytes)
        is_changed = orjson.dumps(self._head) + b"\n" != old_head
        n_bytes, number = len(old_head), 0
        dropped: list[int] = []

        def entries() -> Iterator[tuple[Any, ...]]:
            nonlocal is_changed, n_bytes, number
            for line, row, was_unwritten in self._valid_rows(n_output_bytes, n_valid):
                status: Status = row["status"]
                start, self.ends[status] = self.ends[status], row["end"]
                yield number, row["key"], row["stamp"], status, start, row["end"], _PENDING
                n_bytes, number = n_bytes + len(line), number + 1
                is_changed |= was_unwritten
                if "drops" in row:
                    dropped.append(row["drops"])

        self._rows = sqlite3.connect("", check_same_thread=False)
        try:
            self._sql("PRAGMA journal_mode = OFF")
            self._sql("PRAGMA cache_size = -65536")
            self._sql(_TABLE)
            with _naming_disk():
                self._rows.executemany(_INSERT, entries())
            self._sql(_INDEX)
            for row in dropped:
                self._sql(_MARK, _DROPPED, row)
        except (LookupError, TypeError, OverflowError, sqlite3.ProgrammingError) as error:
            why = f"line {number + 2} is not a valid entry"
            raise RunProblem(f"{self._path}: {why}; {START_OVER}") from error
        if is_changed or self._size != n_bytes:
            rows = self._valid_rows(n_output_bytes, n_valid)
            self._size = self._write(self._path, (line for line, *_ in rows))

    def _sql(self, statement: str, *values: Any) -> Any:
        """Run a statement on the rows; RunProblem if the disk of the temporary file is full."""
        assert self._rows is not None
        with _naming_disk():
            return self._rows.execute(statement, values)

    def _valid_rows(
        self, n_output: int, n_rejects: int | None
    ) -> Iterator[tuple[bytes, JsonObject, bool]]:
        """Lines and rows within the files, and whether the reject of a row is unwritten now."""
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
        """Check the first line; return the valid bytes of the rejects file, None: as recorded."""
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

    def take(self, key: str, stamp: str = "") -> Entry | None:
        """Take the first earlier entry of a key that is neither dropped nor taken.

        Without one that of a photo with this stamp whose path is another name of the same file: the
        folder may be given as `.`, `photos` or `/home/me/photos`, or through a link.
        """
        if self._rows is None:
            return None
        row = self._sql(_BY_KEY, key).fetchone()
        if row is None and stamp and not key.isdecimal():
            self._sql(_STAMP_INDEX)
            rows = self._sql(_BY_STAMP, stamp).fetchall()
            row = next((row for row in rows if self._is_same(row[0], key)), None)
        if row is None:
            return None
        _, number, status, stamp, start, end = row
        self._sql(_MARK, _TAKEN, number)
        return Entry(number, status, stamp, end, end > start)

    def _is_same(self, old: str, key: str) -> bool:
        """Whether an earlier name, relative to a folder that holds the output, is a photo's."""
        if old.isdecimal() or Path(old).name != Path(key).name:
            return False
        places = [Path(), *Path(os.path.abspath(self._path)).parents]  # noqa: PTH100
        folders = {os.path.realpath(place / Path(old).parent) for place in places}
        return os.path.realpath(Path(key).parent) in folders

    def prune(self, is_gone: Callable[[str], bool]) -> int:
        """Drop the entries of inputs that were not taken and are gone; return their number."""
        if self._rows is None:
            return 0
        rows = self._sql(f"SELECT number, key FROM rows WHERE mark = {_PENDING}")
        gone = [number for number, key in rows if is_gone(key)]
        for number in gone:
            self._sql(_MARK, _DROPPED, number)
        return len(gone)

    def drop_doubled(self) -> int:
        """Drop entries of positions beyond the input whose content came at another position.

        Return the number of those whose content did not come at all.
        """
        if self._rows is None:
            return 0
        self._sql(_DROP_DOUBLED)
        return int(self._sql(f"SELECT count(*) FROM rows WHERE {_IS_PENDING_PLACE}").fetchone()[0])

    @property
    def has_dropped(self) -> bool:
        """Whether an entry was dropped, so that the files need `compact`."""
        dropped = f"SELECT 1 FROM rows WHERE mark = {_DROPPED} LIMIT 1"
        return self._rows is not None and self._sql(dropped).fetchone() is not None

    def close(self) -> None:
        """Delete the temporary file of the rows."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def add(
        self, key: str, stamp: str, status: Status, end: int, drops: Entry | None = None
    ) -> None:
        """Record an input, which may drop an earlier entry; written at the next `flush`."""
        row: JsonObject = {"key": key, "stamp": stamp, "status": status, "end": end}
        if drops is not None:
            row["drops"] = drops.row
            self._sql(_MARK, _DROPPED, drops.row)
        if self._rows is not None:
            start, self.ends[status] = self.ends[status], end
            self._sql(_INSERT, None, key, stamp, status, start, end, _TAKEN)
        self._pending.append(orjson.dumps(row) + b"\n")

    def flush(self) -> None:
        """Append the pending entries; call it after flushing the outputs that they record."""
        if not self._pending:
            return
        content = b"".join(self._pending)
        try:
            with open_to_append(self._path) as stream:
                stream.write(content)
        except OSError as error:
            with suppress(OSError):  # half a line would damage the next one
                os.truncate(self._path, self._size)
            raise RunProblem(f"{self._path}: {error.strerror or error}") from error
        self._size += len(content)
        self._pending.clear()

    def stale(self, status: Status) -> Iterator[tuple[int, int]]:
        """The byte ranges of dropped entries in the file of a status, in order."""
        which = f"status = ? AND mark = {_DROPPED} AND end > start"
        yield from self._sql(f"SELECT start, end FROM rows WHERE {which} ORDER BY number", status)

    def compact(self) -> None:
        """Write a state without dropped entries, `STATE.kept`, after such copies of the outputs.

        From the moment it exists, `roll_forward` completes the change, also after a crash; before
        it, everything is as it was.
        """
        removed: dict[Status, int] = {"done": 0, "rejected": 0}

        def kept_rows() -> Iterator[bytes]:
            rows = self._sql(
                "SELECT key, stamp, status, start, end, mark FROM rows ORDER BY number"
            )
            for key, stamp, status, start, end, mark in rows:
                if mark == _DROPPED:
                    removed[status] += end - start
                    continue
                row = {"key": key, "stamp": stamp, "status": status, "end": end - removed[status]}
                yield orjson.dumps(row) + b"\n"

        self._write(kept_path(self._path), kept_rows())
        self.close()


@contextmanager
def _naming_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        where = "$TMPDIR names its folder"  # SQLite's choice without it is not tempfile's
        raise RunProblem(f"temporary file of --resume ({where}): {error}") from error


def rename_old_state(output: Path) -> None:
    """Give a state that an earlier version wrote its present name."""
    old, state = old_state_path(output), state_path(output)
    if present_state(output) == old:
        for before, now in ((kept_path(old), kept_path(state)), (old, state)):
            if before.exists():
                move_into_place(before, now)


def roll_forward(output: Path) -> None:
    """Put the compacted copies of an output and its rejects in place, if their state exists."""
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
    """The object of a complete line; None for one that a crash has torn."""
    try:
        row = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def read_rows(path: Path) -> Iterator[tuple[bytes, JsonObject]]:
    """The lines of a state after the first, with their objects, up to a torn one."""
    with path.open("rb") as stream:
        stream.readline()
        for line in stream:
            if (row := parsed(line)) is None:
                return
            yield line, row
