"""The requests of a server: counts in Prometheus's text format, and a line of JSON for each."""

from collections import defaultdict
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO

from starlette.types import Scope

from ramctl.records.jsonl import dumps


class Traffic:
    """Counts of requests and photos; `log` gets a line for each request."""

    def __init__(self, log: BinaryIO | None = None) -> None:
        self._log = log
        self._counts = defaultdict[str, float](float)  # by the name of a metric and its labels

    def count(self, metric: str, number: float = 1, **labels: object) -> None:
        """Add to a metric with these labels, of which there are few."""
        text = ",".join(f'{name}="{value}"' for name, value in labels.items())
        self._counts[f"{metric}{{{text}}}"] += number

    def log(self, scope: Scope, status: int, seconds: float) -> None:
        """Write the line of an answered request, without its query: words are the user's."""
        if self._log is None:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": scope["client"][0], "method": scope["method"], "path": scope["path"],
            "status": status, "seconds": round(seconds, 3),
        }  # fmt: skip
        with suppress(OSError):  # a full disk, or a reader that has gone, stops no answer
            self._log.write(dumps(line))
            self._log.flush()

    def text(self) -> str:
        """All counts in Prometheus's text format, version 0.0.4."""
        lines: list[str] = []
        for name, number in sorted(self._counts.items()):
            head = f"# TYPE {name.partition('{')[0]} counter"
            lines += [*([] if head in lines else [head]), f"{name} {number:.9g}"]
        return "\n".join([*lines, ""])
