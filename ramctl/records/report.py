"""The account that a command keeps of its records: counts, rejects, the closing line."""

import platform
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ramctl import __version__
from ramctl.errors import EXIT_OK, EXIT_REJECTS

NAMED_REJECTS = 20


@dataclass(frozen=True, slots=True)
class Reject:
    """An input that a stage could not do, with the place, the reason and the input itself."""

    source: str
    line: int | None
    stage: str
    code: str
    message: str
    record: dict[str, Any] | None = None
    raw: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The reject as written to `--rejects`; reading it again gives the wrapped record."""
        out: dict[str, Any] = {
            "source": self.source,
            "line": self.line,
            "stage": self.stage,
            "code": self.code,
            "message": self.message,
        }
        out.update({"record": self.record} if self.record is not None else {"raw": self.raw or ""})
        return out

    @property
    def place(self) -> str:
        """`file:line`, or the file alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(slots=True)
class Report:
    """Counts of one run of one command, told on stderr and in `--stats`."""

    command: str
    quiet: bool = False
    unit: str = "records"
    device: str = "cpu"
    n_in: int = 0
    n_out: int = 0
    n_skipped: int = 0
    n_left: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    extra: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def n_rejected(self) -> int:
        """Inputs that were rejected in this run."""
        return sum(self.rejects.values())

    @property
    def exit_code(self) -> int:
        """0 when all was done, 3 when some inputs were rejected."""
        return EXIT_REJECTS if self.rejects else EXIT_OK

    def say(self, message: str) -> None:
        """One line on stderr, named after the command; silent with `-q`."""
        if not self.quiet:
            self.warn(message)

    def warn(self, message: str) -> None:
        """One line on stderr, with `-q` too."""
        sys.stderr.write(f"ramctl {self.command}: {message}\n")
        sys.stderr.flush()

    def reject(self, reject: Reject) -> None:
        """Count a reject and name the first twenty."""
        self.rejects[reject.code] += 1
        if self.n_rejected <= NAMED_REJECTS:
            self.say(f"{reject.place}: {reject.message}")
        elif self.n_rejected == NAMED_REJECTS + 1:
            self.say("more rejects follow; they are counted, and named in --rejects")

    def summary(self) -> str:
        """The closing line, in a form that scripts may rely on."""
        seconds = time.monotonic() - self.started
        parts = [f"{self.n_in} in", f"{self.n_out} out", f"{self.n_rejected} rejected"]
        if self.n_skipped:
            parts.append(f"{self.n_skipped} done before")
        if self.n_left:
            parts.append(f"{self.n_left} left")
        rate = self.n_out / seconds if seconds > 0 else 0.0
        parts += [f"{seconds:.1f} s", f"{rate:.{0 if rate >= 10 else 1}f} {self.unit}/s"]
        return ", ".join(parts) + f" ({self.device})"

    def stats(self) -> dict[str, Any]:
        """The closing line as an object, with rejects by code and versions."""
        seconds = time.monotonic() - self.started
        return {
            "command": self.command,
            "in": self.n_in,
            "out": self.n_out,
            "rejected": self.n_rejected,
            "skipped": self.n_skipped,
            "left": self.n_left,
            "rejects": dict(sorted(self.rejects.items())),
            "seconds": round(seconds, 3),
            "rate": round(self.n_out / seconds, 3) if seconds > 0 else 0.0,
            "unit": self.unit,
            "device": self.device,
            "versions": {"ramctl": __version__, "python": platform.python_version()},
            **self.extra,
        }
