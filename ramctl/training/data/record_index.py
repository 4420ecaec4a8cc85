"""What a pass over all records found, kept in a file: a resumed run and the other processes of one
that begins read it in seconds, however many records there are."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ramctl.records.files import replacing
from ramctl.records.record import JsonObject, Reject, shown_name
from ramctl.training.data.record_file import RecordFile, Source
from ramctl.training.data.record_scan import BadLines, ScannedRecords
from ramctl.training.data.targets import TagCounts

COLUMNS = ("source", "offset", "length", "line")
COLUMNS_OF_BAD = tuple(f"bad_{name}" for name in COLUMNS)
OnReject = Callable[[Reject], None]


@dataclass(frozen=True, slots=True)
class RecordIndex:
    """The file, and what it is an index of: sources, and how they are read."""

    path: Path
    sources: Sequence[Source]
    options: JsonObject

    def scanned(
        self, scan: Callable[[OnReject], ScannedRecords], on_reject: OnReject, *, keep: bool
    ) -> ScannedRecords:
        """The scanned records: those of the file while the sources are unchanged, else by `scan`.

        With `keep`, what `scan` found is written. Rejects are told either way.
        """
        facts = self._facts()
        records = self._read(facts)
        if records is not None:
            for reject in records.bad.rejects():
                on_reject(reject)
            return records
        records = scan(on_reject)
        if keep and self._facts() == facts:  # else a source grew meanwhile
            self._write(facts, records)
        return records

    def _facts(self) -> JsonObject:
        stats = [source.path.stat() for source in self.sources]
        names = [[str(source.path), shown_name(source.name)] for source in self.sources]
        return self.options | {
            "sources": [
                [*name, stat.st_size, stat.st_mtime_ns]
                for name, stat in zip(names, stats, strict=True)
            ]
        }

    def _write(self, facts: JsonObject, scanned: ScannedRecords) -> None:
        counts, bad = scanned.counts, scanned.bad
        told = {
            "facts": facts,
            "bad": [bad.stage, bad.max_line, bad.problems],
            "sha256": scanned.sha256,
            "n_lines": scanned.n_lines,
            "n_records": counts.n_records,
            "n_captions": counts.n_captions,
            "tags": list(counts.tags.items()),
            "kinds": [[*pair, number] for pair, number in counts.kinds.items()],
        }
        arrays: dict[str, Any] = {
            **dict(zip(COLUMNS, map(np.asarray, scanned.records.columns), strict=True)),
            **dict(zip(COLUMNS_OF_BAD, map(np.asarray, bad.lines.columns), strict=True)),
            "told": np.frombuffer(json.dumps(told).encode("ascii"), np.uint8),
            "training": scanned.training_ids,
            "held_out": scanned.held_out_ids,
        }
        if scanned.shards is not None:
            arrays["shards"] = scanned.shards
        with replacing(self.path) as stream:
            np.savez(stream, **arrays)

    def _read(self, facts: JsonObject) -> ScannedRecords | None:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                told = json.loads(file["told"].tobytes())
                if told["facts"] != facts:
                    return None
                records, lines = (
                    RecordFile(self.sources, [file[name] for name in columns])
                    for columns in (COLUMNS, COLUMNS_OF_BAD)
                )
                ids = file["training"], file["held_out"]
                shards = file.get("shards")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # not written yet, or damaged
        kinds = Counter({(tag, kind): number for tag, kind, number in told["kinds"]})
        counts = TagCounts(
            told["n_records"], Counter(dict(told["tags"])), kinds, told["n_captions"]
        )
        stage, max_line, problems = told["bad"]
        bad = BadLines(lines, stage, max_line, problems)
        return ScannedRecords(records, bad, counts, told["sha256"], told["n_lines"], *ids, shards)
