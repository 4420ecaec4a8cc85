"""The state file of an output, in which `--resume` finds what an earlier run has done.

The file is JSONL. Its first line holds the fingerprint (hashes of model, labels and thresholds);
every other line, appended after the output that it names, records one input that is done:

    {"key", "stamp", "end"}  end: of its line in the output
    {..., "drops": N}        replaces, or without a key removes, the entry of line N, counted from 0

When a run is complete, `compact` removes dropped entries from output and state.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson

from ramctl.errors import RunProblem
from ramctl.records.files import (
    kept_path,
    move_into_place,
    naming,
    part_path,
    replacing,
    state_path,
)
from ramctl.records.record import JsonObject

FORMAT = 2
START_OVER = "run without --resume to start over"
# The rows of an earlier run and of this one, in a temporary file: they may be many millions.
_PENDING, _TAKEN, _DROPPED = range(3)  # values of `mark`; rows of this run are taken
_TABLE = """
    CREATE TABLE rows (
        number INTEGER PRIMARY KEY, key TEXT, stamp TEXT, start INT, end INT, mark INT
    )
"""
# Pending rows only: else a look-up of a key would pass all its rows that are taken.
_INDEX = f"CREATE INDEX pending_by_key ON rows (key) WHERE mark = {_PENDING}"
_INSERT = "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?)"
_STAMP_INDEX = (
    f"CREATE INDEX IF NOT EXISTS pending_by_stamp ON rows (stamp) WHERE mark = {_PENDING}"
)
_BY_KEY, _BY_STAMP = (
    f"SELECT key, number, stamp FROM rows WHERE {column} = ? AND mark = {_PENDING} ORDER BY number"
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


class Entry(NamedTuple):
    """A recorded input."""

    row: int
    stamp: str


def _other_run(state: Path, what: str) -> RunProblem:
    remedy = f"write to another file, or {START_OVER}"
    return RunProblem(f"{state}: the earlier part was made with another {what}; {remedy}")


class ResumeState:
    """The entries of an earlier run, looked up by `take`, and of this run, appended by `add`.

    `end` is where the last entry ends in the output, at first the number of bytes of its header.
    """

    def __init__(
        self, path: Path, command: str, fingerprint: Mapping[str, str], n_header: int = 0
    ) -> None:
        self._path = path
        made_by = {"command": command, "fingerprint": dict(fingerprint)}
        self._head: JsonObject = {"format": FORMAT} | made_by
        self._rows: sqlite3.Connection | None = None  # None: there is no earlier run
        self._stream: BinaryIO | None = None
        self._pending: list[bytes] = []
        self.end = n_header

    def start(self) -> None:
        """Begin a new state in place of an older one."""
        kept_path(self._path).unlink(missing_ok=True)
        with naming(self._path):
            self._stream = self._path.open("wb")
            self._stream.write(orjson.dumps(self._head) + b"\n")
            self._stream.flush()

    def load(self, n_output_bytes: int) -> None:
        """Read the earlier state of an output of so many bytes.

        Entries beyond the end of the output are forgotten. RunProblem if the command or the
        fingerprint differs.
        """
        if not (self._path.exists() and self._path.stat().st_size):
            if n_output_bytes:
                why = "not found, so --resume cannot find what is done"
                raise RunProblem(f"{self._path}: {why}; {START_OVER}")
            self.start()
            return
        number, dropped = 0, list[int]()
        with self._path.open("rb") as stream:
            head = stream.readline()
            n_bytes = len(head)
            self._check_head(parsed(head) or {})

            def entries() -> Iterator[tuple[Any, ...]]:
                nonlocal n_bytes, number
                for line in stream:
                    if (row := parsed(line)) is None or row.get("end", 0) > n_output_bytes:
                        return
                    if "drops" in row:
                        dropped.append(row["drops"])
                    if "key" in row:
                        start, self.end = self.end, row["end"]
                        yield number, row["key"], row["stamp"], start, self.end, _PENDING
                    n_bytes, number = n_bytes + len(line), number + 1

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
        with naming(self._path):
            self._stream = self._path.open("ab")
            self._stream.truncate(n_bytes)

    def _sql(self, statement: str, *values: Any) -> Any:
        """Run a statement on the rows; RunProblem if the disk of the temporary file is full."""
        assert self._rows is not None
        with _naming_disk():
            return self._rows.execute(statement, values)

    def _check_head(self, head: JsonObject) -> None:
        if head.get("format") != FORMAT or head.get("command") != self._head["command"]:
            raise _other_run(self._path, "command or version")
        old, new = head.get("fingerprint", {}), self._head["fingerprint"]
        changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        if changed:
            raise _other_run(self._path, ", ".join(changed))

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
        _, number, stamp = row
        self._sql(_MARK, _TAKEN, number)
        return Entry(number, stamp)

    def _is_same(self, old: str, key: str) -> bool:
        """Whether an earlier name, relative to a folder that holds the output, is a photo's."""
        if old.isdecimal() or Path(old).name != Path(key).name:
            return False
        places = [Path(), *Path(os.path.abspath(self._path)).parents]  # noqa: PTH100
        folders = {os.path.realpath(place / Path(old).parent) for place in places}
        return os.path.realpath(Path(key).parent) in folders

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
        """Close the file, and delete the temporary file of the rows."""
        if self._stream is not None:
            with naming(self._path):
                os.fsync(self._stream.fileno())
                self._stream.close()
            self._stream = None
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def add(self, key: str, stamp: str, end: int, drops: Entry | None = None) -> None:
        """Record an input that is done, which may replace an earlier entry."""
        start, self.end = self.end, end
        if self._rows is not None:
            self._sql(_INSERT, None, key, stamp, start, end, _TAKEN)
        self._append({"key": key, "stamp": stamp, "end": end}, drops)

    def drop(self, entry: Entry) -> None:
        """Remove an entry, of an input that is a reject now."""
        self._append({}, entry)

    def _append(self, row: JsonObject, drops: Entry | None) -> None:
        if drops is not None:
            row["drops"] = drops.row
            self._sql(_MARK, _DROPPED, drops.row)
        self._pending.append(orjson.dumps(row) + b"\n")

    def flush(self) -> None:
        """Hand the entries to the operating system, after the output that they record."""
        if self._stream is not None:
            with naming(self._path):
                self._stream.write(b"".join(self._pending))
                self._stream.flush()
            self._pending.clear()

    def stale(self) -> Iterator[tuple[int, int]]:
        """The byte ranges of dropped entries in the output, in order."""
        yield from self._sql(f"SELECT start, end FROM rows WHERE mark = {_DROPPED} ORDER BY number")

    def compact(self) -> None:
        """Write a state without dropped entries, `STATE.kept`, after such a copy of the output.

        From the moment it exists, `roll_forward` completes the change, also after a crash; before
        it, everything is as it was.
        """
        removed = 0
        with replacing(kept_path(self._path)) as stream:
            stream.write(orjson.dumps(self._head) + b"\n")
            query = "SELECT key, stamp, start, end, mark FROM rows ORDER BY number"
            for key, stamp, start, end, mark in self._sql(query):
                if mark == _DROPPED:
                    removed += end - start
                    continue
                row = {"key": key, "stamp": stamp, "end": end - removed}
                stream.write(orjson.dumps(row) + b"\n")


@contextmanager
def _naming_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        where = "$TMPDIR names its folder"  # SQLite's choice without it is not tempfile's
        raise RunProblem(f"temporary file of --resume ({where}): {error}") from error


def roll_forward(output: Path) -> None:
    """Put the compacted copies of an output and its state in place, if that of the state exists."""
    state, part = state_path(output), part_path(output)
    if kept_path(state).exists():
        if kept_path(part).exists():
            move_into_place(kept_path(part), part)
        move_into_place(kept_path(state), state)


def parsed(line: bytes) -> JsonObject | None:
    """The object of a complete line; None for one that a crash has torn."""
    try:
        row = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
