"""`ramctl` in processes forked from one that has imported everything: a tenth of a second each.

A test that runs a command gets a process of its own, with its own folder, streams, environment,
signals and exit status. Only what an interpreter reads when it starts is as it was: where that is
the subject, a fresh interpreter runs (`fresh=True`, and by itself where a variable of the
environment asks for it).
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
PLACE = "FORKERS_PLACE"  # the variable that names the folder of the sockets
PATIENCE_S = 600
MOST_REQUEST = 1 << 18
# Variables that are read when an interpreter starts or a library is imported.
_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "HF_", "TZ")
_OF_LIBRARIES = {"PYTHONBREAKPOINT"}  # set when Ray is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
_AT_FIRST = dict(os.environ)
_LIGHT = [
    "ramctl.cli", "numpy", "click.shell_completion", "onnxruntime", "sklearn.metrics",
    "ramctl.parsing.parse_run", "ramctl.parsing.label_builder", "ramctl.inference.tag_photos",
    "ramctl.inference.tagger", "ramctl.apps.import_photos", "ramctl.apps.export_records",
    "ramctl.evaluation.evaluate", "PIL.JpegImagePlugin", "PIL.PngImagePlugin",
]  # fmt: skip
_TORCH = [
    "torch", "transformers.modeling_utils", "sklearn.cluster", "onnx", "ml_dtypes", "torch.onnx",
    "ramctl.training.train", "ramctl.data_engine.cleaning", "ramctl.data_engine.additions",
    "ramctl.apps.conversion", "ramctl.inference.torch_engine",
]  # fmt: skip
_MODULES = {"light": _LIGHT, "torch": [*_LIGHT, *_TORCH]}
_TORCH_COMMANDS = {"generate", "clean", "train", "finetune", "fit", "convert"}
Stream = int | IO[bytes]
_forkers: list[subprocess.Popen[bytes]] = []


class Forked:
    """A running command, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, line: socket.socket, streams: "list[IO[bytes] | None]") -> None:
        self._line = line
        self.stdin, self.stdout, self.stderr = streams
        self.pid = int(line.recv(16))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, as `subprocess` gives it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status once it has ended; subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("ramctl", timeout or 0)
            self.returncode = int(self._line.recv(16))
            self._line.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(
        self, stdin: bytes | None = None, timeout: float | None = PATIENCE_S
    ) -> tuple[bytes, bytes]:
        """Give it its input, and wait for its output and its end."""

        def read(stream: IO[bytes] | None) -> bytes:
            if stream is None or stream.closed:
                return b""
            with stream:
                return stream.read()

        with ThreadPoolExecutor(2) as pool:
            out, err = (pool.submit(read, stream) for stream in (self.stdout, self.stderr))
            if self.stdin is not None and not self.stdin.closed:
                with suppress(BrokenPipeError), self.stdin:
                    self.stdin.write(stdin or b"")
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
            return out.result(), err.result()

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        self.wait()


def start(place: Path) -> None:
    """Listen in a folder; what others are forked from imports when the first is asked for."""
    os.environ[PLACE] = str(place)
    for kind in _MODULES:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(str(place / kind))
            door.listen(64)
            words = [sys.executable, "-m", "tests.forked", str(door.fileno()), kind]
            _forkers.append(
                subprocess.Popen(
                    words, pass_fds=(door.fileno(),), cwd=REPOSITORY, stdin=subprocess.PIPE
                )
            )


def close() -> None:
    """End what others were forked from."""
    for forker in _forkers:
        forker.communicate()


def _ask(
    kind: str, words: list[str], cwd: Path, environment: dict[str, str], before: str,
    descriptors: list[int],
) -> socket.socket:  # fmt: skip
    """Ask for a process: its number, and later its exit status, come on the line."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line.connect(str(Path(os.environ[PLACE], kind)))
    request = json.dumps([words, str(cwd), environment, before]).encode()
    socket.send_fds(line, [request], descriptors)
    return line


def fork(
    words: list[str], cwd: Path, environment: dict[str, str], before: str,
    streams: tuple[Stream, Stream, Stream], *, like: str | None = None,
) -> Forked:  # fmt: skip
    """Run `before`, then `ramctl WORDS` if there are any, in a session of its own."""
    theirs, ours = [], []
    for number, stream in enumerate(streams):
        if stream != subprocess.PIPE:
            number = stream if isinstance(stream, int) else stream.fileno()
            is_null = number == subprocess.DEVNULL
            theirs.append(os.open(os.devnull, os.O_RDWR) if is_null else os.dup(number))
            ours.append(None)
            continue
        read, write = os.pipe()
        theirs.append(write if number else read)
        ours.append(os.fdopen(read, "rb") if number else os.fdopen(write, "wb"))
    command = like if like is not None else next(iter(words), "")
    kind = "torch" if command in _TORCH_COMMANDS else "light"
    line = _ask(kind, words, cwd, environment, before, theirs)
    for descriptor in theirs:
        os.close(descriptor)
    return Forked(line, ours)


def write_program(path: Path) -> None:
    """A program `path` that shells may run as `ramctl`."""
    path.write_text(
        f"#!{sys.executable} -SE\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from tests.forked import be_program\nbe_program(sys.argv[1:])\n"
    )
    path.chmod(0o755)


def be_program(words: list[str]) -> NoReturn:
    """Hand over words, folder, environment and streams; end as the command ends."""
    kind = "torch" if words[:1] and words[0] in _TORCH_COMMANDS else "light"
    line = _ask(kind, words, Path.cwd(), dict(os.environ), "", [0, 1, 2])
    command = int(line.recv(16))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(command, number))
    status = int(line.recv(16))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


def needs_fresh(environment: dict[str, str]) -> bool:
    """Whether the environment differs in what an interpreter or a library reads at its start."""
    before = {"PYTHONPATH": str(REPOSITORY), **_AT_FIRST}
    names = {**environment, **before}.keys() - _OF_LIBRARIES
    changed = (name for name in names if environment.get(name) != before.get(name))
    return any(name.startswith(_AT_START) for name in changed)


def _serve(door: socket.socket, kind: str) -> None:
    """Fork for each that asks, until whoever listens has ended and with it standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts pytest means pytest
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the watchers
    select.select([door, 0], [], [])
    for module in _MODULES[kind]:
        with suppress(ImportError):
            import_module(module)
    with suppress(ImportError):
        from ramctl.parsing.parser import CaptionParser

        CaptionParser.open().tags("a horse")  # what is read for the first caption
    gc.collect()
    gc.freeze()
    while 0 not in select.select([door, 0], [], [])[0]:
        line, _ = door.accept()
        if os.fork() == 0:
            door.close()
            _watch(line)
        line.close()


def _watch(line: socket.socket) -> NoReturn:
    """Fork the command, wait for its end, and tell its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    content, descriptors, _, _ = socket.recv_fds(line, MOST_REQUEST, 3)
    command = os.fork()
    if command == 0:
        line.close()
        _be(*json.loads(content), descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    with suppress(BrokenPipeError):
        line.send(str(command).encode())
        status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        line.send(str(status).encode())
    os._exit(0)


def _be(
    words: list[str], cwd: str, environment: dict[str, str], before: str, descriptors: list[int]
) -> NoReturn:
    """Become the command."""
    code: Any = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
            2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        os.chdir(cwd)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        sys.argv[:] = ["ramctl", *words]
        try:
            exec(before, {})
            if words or not before:
                import_module("ramctl.cli").main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
