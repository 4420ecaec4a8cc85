"""What an earlier run of the same output has done: the state file behind `--resume`.

The file is append-only JSONL. Its first line holds the fingerprint (hashes of model, labels and
thresholds); every other line records one input and is written after the output that it names.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from ramctl.errors import RunProblem
from ramctl.records.files import state_path
from ramctl.records.record import JsonObject

Status = Literal["done", "rejected"]
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded input; `start` and `end` are its bytes in the output or the rejects file."""

    status: Status
    stamp: str
    start: int
    end: int


def recorded_fingerprint(output: Path) -> dict[str, str]:
    """The fingerprint in the state of an output; empty where there is none."""
    path = state_path(output)
    if not path.exists():
        return {}
    with path.open("rb") as lines:
        head: JsonObject = orjson.loads(next(lines, b"{}"))
    return dict(head.get("fingerprint", {}))


class ResumeState:
    """Looks up earlier entries by input key and appends new ones."""

    def __init__(self, path: Path, command: str, fingerprint: Mapping[str, str]) -> None:
        self._path = path
        self._fingerprint = dict(fingerprint)
        self._command = command
        self._earlier: dict[str, deque[Entry]] = defaultdict(deque)
        self._pending: list[bytes] = []
        self.ends: dict[Status, int] = {"done": 0, "rejected": 0}

    def start(self) -> None:
        """Begin a new state and discard an older one."""
        head = {"format": FORMAT, "command": self._command, "fingerprint": self._fingerprint}
        self._path.write_bytes(orjson.dumps(head) + b"\n")

    def load(self, n_output_bytes: int) -> None:
        """Read the earlier state of an output that now has `n_output_bytes`.

        Raises RunProblem when it belongs to another command, model, label system or thresholds.
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
        self._check_head(orjson.loads(lines[0]))
        kept = [lines[0]]
        for line, (row, entry) in zip(lines[1:], _entries(lines[1:]), strict=False):
            if entry.status == "done" and entry.end > n_output_bytes:
                break
            self.ends[entry.status] = entry.end
            self._earlier[row["key"]].append(entry)
            kept.append(line)
        if len(kept) < len(lines):
            self._path.write_bytes(b"".join(kept))

    def _check_head(self, head: JsonObject) -> None:
        if head.get("format") != FORMAT or head.get("command") != self._command:
            raise RunProblem(f"{self._path}: written by another command or version")
        old, new = head.get("fingerprint", {}), self._fingerprint
        changed = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        if changed:
            raise RunProblem(
                f"{self._path}: the earlier part was made with another {', '.join(changed)}; "
                "write to another file, or run without --resume to start over"
            )

    def take(self, key: str) -> Entry | None:
        """The earlier entry of this input; a repeated input takes one entry each time."""
        entries = self._earlier.get(key)
        return entries.popleft() if entries else None

    def add(self, key: str, stamp: str, status: Status, end: int) -> None:
        """Record an input; written at the next `flush`."""
        row = {"key": key, "stamp": stamp, "status": status, "end": end}
        self._pending.append(orjson.dumps(row) + b"\n")

    def flush(self) -> None:
        """Append the pending entries; call after flushing the outputs that they name."""
        if self._pending:
            with self._path.open("ab") as stream:
                stream.write(b"".join(self._pending))
            self._pending.clear()

    def rewrite(self, stale: Mapping[Status, list[tuple[int, int]]]) -> None:
        """Drop the entries whose bytes were dropped, and adjust the ends of the others."""
        if not any(stale.values()):
            return
        lines = self._path.read_bytes().splitlines(keepends=True)
        kept = [lines[0]]
        for row, entry in _entries(lines[1:]):
            dropped = stale[entry.status]
            if (entry.start, entry.end) not in dropped:
                row["end"] -= sum(end - start for start, end in dropped if end <= entry.end)
                kept.append(orjson.dumps(row) + b"\n")
        self._path.write_bytes(b"".join(kept))


def _entries(lines: list[bytes]) -> Iterator[tuple[JsonObject, Entry]]:
    """The rows of a state with their entries, up to a torn line."""
    starts: dict[Status, int] = {"done": 0, "rejected": 0}
    for line in lines:
        if not line.endswith(b"\n"):
            return
        row = orjson.loads(line)
        status: Status = row["status"]
        yield row, Entry(status, row["stamp"], starts[status], row["end"])
        starts[status] = row["end"]
