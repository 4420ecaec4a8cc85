"""`ramctl` as tests run it: in this process, in one forked off, or in a fresh interpreter."""

import io
import json
import os
import subprocess
import sys
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from tests.forked import PATIENCE_S, REPOSITORY, Forked, Stream, fork, needs_fresh


class Done(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: bytes
    stderr: bytes

    @property
    def rows(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def messages(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="surrogateescape")


# Runs in the process of a command: each record is then written before the next is read.
ONE_BY_ONE = "import ramctl.records.stream as stream; stream.BATCH = 1"


class Ramctl:
    """Runs the command below a folder.

    Called, it runs in this process, which costs nothing. Where signals, pipes, limits or what a
    process keeps are the subject, `process` and `start` give it one of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, *words: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
    ) -> Done:
        """What `ramctl WORDS` leaves behind when it runs in this process."""
        from ramctl.cli import main

        streams = [io.TextIOWrapper(io.BytesIO(stdin), "utf-8")]
        for errors in ("strict", "backslashreplace"):
            streams.append(io.TextIOWrapper(io.BytesIO(), "utf-8", errors, write_through=True))
        arguments = [str(word) for word in words]
        code: object = None
        with ExitStack() as stack:
            stack.enter_context(chdir(cwd or self.folder))
            stack.enter_context(patch.dict(os.environ, environment))
            stack.enter_context(patch.object(sys, "argv", ["ramctl", *arguments]))
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                stack.enter_context(patch.object(sys, name, stream))
            try:
                main(arguments)
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int)
        out, err = (stream.buffer.getvalue() for stream in streams[1:])
        return Done(code, out, err)

    def process(
        self,
        *words: object,
        stdin: bytes = b"",
        cwd: Path | None = None,
        fresh: bool = False,
        before: str = "",
        **environment: str,
    ) -> Done:
        """What it leaves behind when a process of its own runs it.

        `before` is Python that runs in that process first. `fresh`: by an interpreter that has
        imported nothing.
        """
        run = self.start(*words, cwd=cwd, fresh=fresh, before=before, **environment)
        out, err = run.communicate(stdin, timeout=PATIENCE_S)
        return Done(run.returncode or 0, out, err)

    def start(
        self,
        *words: object,
        cwd: Path | None = None,
        fresh: bool = False,
        before: str = "",
        stdin: Stream = subprocess.PIPE,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        **environment: str,
    ) -> Forked | subprocess.Popen[bytes]:
        """A running `ramctl WORDS`, with pipes unless its streams go elsewhere."""
        variables = {"PYTHONPATH": str(REPOSITORY), **os.environ, **environment}
        streams, folder = (stdin, stdout, stderr), cwd or self.folder
        if not fresh and not needs_fresh(variables):
            return fork(list(map(str, words)), folder, variables, before, streams)
        program = f"{before}\nfrom ramctl.cli import main; main()"
        start = ["-c", program] if before else ["-m", "ramctl"]
        return subprocess.Popen(
            [sys.executable, *start, *map(str, words)], cwd=folder, env=variables,
            stdin=stdin, stdout=stdout, stderr=stderr,
        )  # fmt: skip
