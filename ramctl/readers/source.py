"""What every reader is given, and what readers share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ramctl.records.jsonl import content_stamp, dumps
from ramctl.records.record import Record, Reject


@dataclass(frozen=True, slots=True)
class Source:
    """One named input: its path (or `-`), the folder its photos are relative to, the command."""

    name: str
    base: Path
    stage: str

    def record(self, fields: dict[str, Any], line: int) -> Record:
        """The record of one row; `line` counts from 1."""
        return Record(fields, self.name, line, self.base, stamp=content_stamp(dumps(fields)))

    def reject(self, line: int, code: str, message: str, raw: object) -> Reject:
        """The reject of one row that holds no record."""
        return Reject(self.name, line, self.stage, code, message, raw=str(raw)[:2000])
