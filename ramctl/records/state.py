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
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from ramctl.errors import RunProblem
from ramctl.records.files import (
    kept_path,
    move_into_place,
    part_path,
    state_path,
    sync_file,
    write_atomic,
)
from ramctl.records.record import JsonObject

Status = Literal["done", "rejected"]
Range = tuple[int, int]
Problem = tuple[str, str]  # code and message of a reject
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded input; `start` and `end` are its bytes in the output or the rejects file."""

    row: int
    status: Status
    stamp: str
    start: int
    end: int
    problem: Problem | None = None

    @property
    def is_written(self) -> bool:
        """Whether the file of its status has a line for it."""
        return self.end > self.start


def recorded_fingerprint(output: Path) -> dict[str, str]:
    """The fingerprint in the state of an output; empty where there is none."""
    path = state_path(output)
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        head: JsonObject = _parsed(next(lines, b"")) or {}
    return dict(head.get("fingerprint", {}))


class ResumeState:
    """Looks up earlier entries by input key and appends new ones.

    `rejects` is the rejects file of this run, if there is one; `n_header` are the output's bytes
    before the first record.
    """

    def __init__(
        self,
        path: Path,
        command: str,
        fingerprint: Mapping[str, str],
        rejects: Path | None = None,
        n_header: int = 0,
    ) -> None:
        self._path = path
        self._head: JsonObject = {
            "format": FORMAT, "command": command, "fingerprint": dict(fingerprint),
            "rejects": None if rejects is None else os.path.abspath(rejects),  # noqa: PTH100
            "header": n_header,
        }  # fmt: skip
        self._earlier: dict[str, deque[Entry]] = defaultdict(deque)
        self._dropped: set[int] = set()  # rows
        self._pending: list[bytes] = []
        self._n_rows = self._size = 0
        self.ends: dict[Status, int] = {"done": n_header, "rejected": 0}
        self.stale: dict[Status, list[Range]] = {"done": [], "rejected": []}
        self.continues_rejects = True  # the rejects file is that of the earlier run

    def start(self) -> None:
        """Begin a new state and discard an older one."""
        kept_path(self._path).unlink(missing_ok=True)
        self._rewrite([])

    def _rewrite(self, rows: list[bytes]) -> None:
        content = b"".join([orjson.dumps(self._head) + b"\n", *rows])
        write_atomic(self._path, content)
        self._size = len(content)

    def load(self, n_output_bytes: int, n_reject_bytes: int = 0) -> None:
        """Read the earlier state of an output and a rejects file that now have so many bytes.

        Entries beyond the output's end are forgotten; rejects that are not in the rejects file
        become unwritten. Raises RunProblem when the state belongs to another command, model, label
        system or thresholds.
        """
        lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        if not lines:
            if n_output_bytes:
                raise RunProblem(
                    f"{self._path}: not found, so --resume cannot tell what is done; "
                    "run without --resume to start over"
                )
            self.start()
            return
        n_valid = self._take_head(lines[0], n_reject_bytes)
        rows, keys, entries = list[bytes](), list[str](), list[Entry]()
        for line in lines[1:]:
            row = _parsed(line)
            if row is None or (row["status"] == "done" and row["end"] > n_output_bytes):
                break
            status: Status = row["status"]
            if status == "rejected" and n_valid is not None and row["end"] > n_valid:
                row["end"] = self.ends["rejected"]
                line = orjson.dumps(row) + b"\n"
            keys.append(row["key"])
            entries.append(_entry(row, len(entries), self.ends[status]))
            rows.append(line)
            self.ends[status] = row["end"]
            if "drops" in row:
                self._drop(entries[row["drops"]])
        for key, entry in zip(keys, entries, strict=True):
            if entry.row not in self._dropped:
                self._earlier[key].append(entry)
        self._n_rows = len(rows)
        head = orjson.dumps(self._head) + b"\n"
        if [head, *rows] != lines:
            self._rewrite(rows)
        self._size = len(head) + sum(map(len, rows))

    def _take_head(self, line: bytes, n_reject_bytes: int) -> int | None:
        """Check the first line; the bytes of the rejects file that count, None: as recorded."""
        head = _parsed(line) or {}
        if head.get("format") != FORMAT or head.get("command") != self._head["command"]:
            raise RunProblem(f"{self._path}: written by another command or version")
        old, new = head.get("fingerprint", {}), self._head["fingerprint"]
        changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        if changed:
            raise RunProblem(
                f"{self._path}: the earlier part was made with another {', '.join(changed)}; "
                "write to another file, or run without --resume to start over"
            )
        self._head["header"] = self.ends["done"] = head.get("header", 0)
        mine, theirs = self._head["rejects"], head.get("rejects")
        if mine is None:
            self._head["rejects"] = theirs
            return None
        self.continues_rejects = mine == theirs or "rejects" not in head
        return n_reject_bytes if self.continues_rejects else 0

    def take(self, key: str) -> Entry | None:
        """The earlier entry of this input; a repeated input takes one entry each time."""
        entries = self._earlier.get(key)
        return entries.popleft() if entries else None

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
            self._drop(drops)
        self._n_rows += 1
        self._pending.append(orjson.dumps(row) + b"\n")

    def _drop(self, entry: Entry) -> None:
        self._dropped.add(entry.row)
        if entry.is_written:
            self.stale[entry.status].append((entry.start, entry.end))

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
        return bool(self._dropped)

    def compact(self) -> None:
        """Leave out what was dropped, once each output has a compacted copy, `FILE.part.kept`.

        From the moment that the new state is there, under the name `STATE.kept`, the copies count;
        a crash before it leaves everything as it was, and one after it is mended by `roll_forward`.
        """
        rows = list[bytes]()
        removed: dict[Status, int] = {"done": 0, "rejected": 0}
        ends: dict[Status, int] = {"done": self._head["header"], "rejected": 0}
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True)[1:]):
            row = _parsed(line) or {}
            status: Status = row["status"]
            start, ends[status] = ends[status], row["end"]
            if number in self._dropped:
                removed[status] += row["end"] - start
                continue
            row.pop("drops", None)
            row["end"] -= removed[status]
            rows.append(orjson.dumps(row) + b"\n")
        content = b"".join([orjson.dumps(self._head) + b"\n", *rows])
        write_atomic(kept_path(self._path), content)
        self._dropped.clear()

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
        head = _parsed(next(lines, b"")) or {}
    files = [output, *([Path(head["rejects"])] if head.get("rejects") else [])]
    for part in map(part_path, files):
        if kept_path(part).exists():
            move_into_place(kept_path(part), part)
    move_into_place(kept, state)


def _parsed(line: bytes) -> JsonObject | None:
    """The object of a whole line; None for one that a crash has torn."""
    try:
        row = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _entry(row: JsonObject, number: int, start: int) -> Entry:
    problem = (row["code"], row["message"]) if "code" in row else None
    return Entry(number, row["status"], row["stamp"], start, row["end"], problem)
