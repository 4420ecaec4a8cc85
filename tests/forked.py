"""`ramctl` in processes forked from one that has imported everything: a tenth of a second each.

A test that runs a command gets a process of its own, with its own folder, streams, environment,
signals and exit status. Only what an interpreter reads when it starts is as it was: where that is
the subject, or `sys.path` is, a fresh interpreter runs (`fresh=True`, and by itself where a
variable of the environment asks for it).
"""

import atexit
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
# Variables that are read when an interpreter starts or a library is imported.
_AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "HF_", "TZ")
_OF_LIBRARIES = {"PYTHONBREAKPOINT"}  # set when Ray is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")
_AT_FIRST = dict(os.environ)
_MOST_REQUEST = 1 << 20
PLACE = "FORKERS_PLACE"  # the variable that says where the workers of a test run find them
_FEW = [
    "ramctl.cli", "ramctl.records.inputs",
        "numpy", "click.shell_completion", "tests.faults.streams",
        "tests.faults.crashes"]  # fmt: skip
_PARSE = [
    "ramctl.parsing.parse_run",
    "ramctl.parsing.label_builder",
]
_TAG = [
    "ramctl.inference.tag_photos", "ramctl.inference.tagger", "onnxruntime",
        "ramctl.apps.import_photos",
        "ramctl.metadata.embedded", "PIL.JpegImagePlugin", "PIL.PngImagePlugin",
        "PIL.TiffImagePlugin", "PIL.GifImagePlugin", "PIL.BmpImagePlugin"]  # fmt: skip
_EVAL = ["ramctl.evaluation.evaluate", "sklearn.metrics"]
_TORCH = ["torch", "transformers.modeling_utils", "sklearn.cluster", "onnx", "ml_dtypes",
          "torch.onnx", "ramctl.training.train", "ramctl.data_engine.cleaning",
          "ramctl.data_engine.additions", "ramctl.apps.conversion",
          "ramctl.checkpoints.packages", "ramctl.inference.torch_engine"]  # fmt: skip
# What a command is forked from has imported this and no more: the less it is, the faster a fork.
_PRELOADED = {
    "parse": (*_FEW, *_PARSE),
    **dict.fromkeys(("tag", "import", "serve"), (*_FEW, *_TAG)),
    "export": (*_FEW, "ramctl.apps.export_records"),
    "eval": (*_FEW, *_EVAL),
    **dict.fromkeys(
        ("generate", "clean", "train", "finetune", "convert"), (*_FEW, *_TAG, *_TORCH, *_PARSE)
    ),
}
Stream = int | IO[bytes]
PATIENCE_S = 600


class Forked:
    """A running command, with the part of `subprocess.Popen` that tests use."""

    seconds = 0.0  # of processor time that ended ones took, with their own children

    def __init__(self, report: IO[bytes], streams: "list[IO[bytes] | None]") -> None:
        self._report = report
        self.stdin, self.stdout, self.stderr = streams
        self.pid = int(report.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, as `subprocess` gives it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status once it has ended; subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            if not select.select([self._report], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("ramctl", timeout or 0)
            status, seconds = self._report.readline().split()
            Forked.seconds += float(seconds)
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._report.close()
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
        read: dict[object, bytes] = {}

        def drain(stream: IO[bytes]) -> None:
            with stream:
                read[stream] = stream.read()

        drains = [
            threading.Thread(target=drain, args=(stream,))
            for stream in (self.stdout, self.stderr)
            if stream is not None and not stream.closed
        ]
        for thread in drains:
            thread.start()
        if self.stdin is not None and not self.stdin.closed:
            with suppress(BrokenPipeError):
                self.stdin.write(stdin or b"")
            with suppress(BrokenPipeError):
                self.stdin.close()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        for thread in drains:
            thread.join()
        return read.get(self.stdout, b""), read.get(self.stderr, b"")

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *exception: object) -> None:
        for stream in (self.stdout, self.stderr, self.stdin):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        self.wait()


class Forker:
    """A process that others are forked from; it is started when it is first needed.

    The workers of a test run share it: each has a line to it of its own.
    """

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._one_at_a_time = threading.Lock()

    def start(
        self,
        words: list[str],
        cwd: Path,
        environment: dict[str, str],
        before: str,
        streams: tuple[Stream, Stream, Stream],
    ) -> Forked:
        """Run `ramctl WORDS` in a session of its own."""
        report, told = os.pipe()
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
        request = {"words": words, "cwd": str(cwd), "environment": environment, "before": before}
        content = json.dumps(request).encode("utf-8", "surrogateescape")
        assert len(content) < _MOST_REQUEST
        with self._one_at_a_time:
            socket.send_fds(self._started(), [content], [*theirs, told])
        for descriptor in (*theirs, told):
            os.close(descriptor)
        return Forked(os.fdopen(report, "rb"), ours)

    def _started(self) -> socket.socket:
        if self._line is None:
            line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_REQUEST)
            place = Path(os.environ[PLACE], f"{zlib.crc32(repr(self._modules).encode()):08x}")
            with _locked(place):
                if not place.exists():
                    self._process = self._listening(place)
                line.connect(str(place))
            self._line = line
        return self._line

    def _listening(self, place: Path) -> "subprocess.Popen[bytes]":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
            door.bind(str(place))
            door.listen()
            return subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(door.fileno()), *self._modules],
                pass_fds=(door.fileno(),), cwd=REPOSITORY, stdin=subprocess.DEVNULL,
                env=_AT_FIRST,
            )  # fmt: skip

    def close(self) -> None:
        """Hang up: it ends once all have, and what was forked from it has ended."""
        if self._line is not None:
            self._line.close()

    def wait(self) -> None:
        """Wait for its end where it was started from here."""
        if self._process is not None:
            self._process.wait()


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@cache
def _forker(modules: tuple[str, ...]) -> Forker:
    forker = Forker(modules)
    _forkers.append(forker)
    return forker


_forkers: list[Forker] = []


def fork(
    words: list[str], cwd: Path, environment: dict[str, str], before: str,
    streams: tuple[Stream, Stream, Stream], *, like: str | None = None,
) -> Forked:  # fmt: skip
    """Run `ramctl WORDS`, or only `before`, with what the command `like` has imported."""
    command = like if like is not None else next(iter(words), "")
    return _forker(_PRELOADED.get(command, (*_FEW,))).start(
        words, cwd, environment, before, streams
    )


def close() -> None:
    """End what others were forked from."""
    for forker in _forkers:
        forker.close()
    for forker in _forkers:
        forker.wait()


# What a shell runs as `ramctl`: it hands over its words, folder, environment and streams.
_CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
line.connect({place!r})
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(line, [request], [0, 1, 2])
command = int(line.recv(16))
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: os.kill(command, number))
status = int(line.recv(16))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@contextmanager
def program_for_shells(path: Path) -> Iterator[None]:
    """A program `path` that shells may run as `ramctl` while the block runs."""
    place = str(path.with_name("line"))
    path.write_text(_CLIENT.format(python=sys.executable, place=place))
    path.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(place)
        listening.listen()
        thread = threading.Thread(target=_answer_all, args=(listening,), daemon=True)
        thread.start()
        yield
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer_all(listening: socket.socket) -> None:
    while True:
        try:
            line, _ = listening.accept()
        except OSError:  # it was shut
            return
        threading.Thread(target=_answer, args=(line,), daemon=True).start()


def _answer(line: socket.socket) -> None:
    """Run what a client asks for, and tell it the exit status."""
    with line:
        content, descriptors, _, _ = socket.recv_fds(line, _MOST_REQUEST, 3)
        words, cwd, environment = json.loads(content)
        run = fork(words, Path(cwd), environment, "", tuple(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(BrokenPipeError):
            line.send(str(run.pid).encode())
            line.send(str(run.wait()).encode())


def needs_fresh(environment: dict[str, str]) -> bool:
    """Whether the environment differs in what an interpreter or a library reads at its start."""
    before = {"PYTHONPATH": str(REPOSITORY), **_AT_FIRST}
    names = {**environment, **before}.keys() - _OF_LIBRARIES
    changed = (name for name in names if environment.get(name) != before.get(name))
    return any(name.startswith(_AT_START) for name in changed)


_told = 0.0  # processor seconds of this process, most of them for imports


def _serve(door: socket.socket) -> None:
    """Fork for each request until all lines are hung up and all children have ended."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts pytest means pytest
    reports: dict[int, int] = {}
    lines: dict[socket.socket, list[int]] = {door.accept()[0]: []}  # with their children
    while lines or reports or _is_asked_for(door):
        for ready in select.select([woken, door, *lines], [], [])[0]:
            if ready is woken:
                os.read(woken, 1 << 10)
                _reap(reports)
                continue
            if ready is door:
                lines[door.accept()[0]] = []
                continue
            content, descriptors, _, _ = socket.recv_fds(ready, _MOST_REQUEST, 4)
            if not content:
                for left in reports.keys() & lines.pop(ready):
                    with suppress(ProcessLookupError):
                        os.killpg(left, signal.SIGKILL)
                ready.close()
                continue
            request = json.loads(content.decode("utf-8", "surrogateescape"))
            child = os.fork()
            if child == 0:
                ours = [one.fileno() for one in (door, *lines)]
                for descriptor in (woken, wake, descriptors[3], *ours, *reports.values()):
                    os.close(descriptor)
                _be(request, descriptors[:3])
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            os.write(descriptors[3], f"{child}\n".encode())
            reports[child] = descriptors[3]
            lines[ready].append(child)


def _is_asked_for(door: socket.socket) -> bool:
    """Whether somebody has just come to the door, which is not found any more from now on."""
    place = Path(door.getsockname())
    with _locked(place):
        place.unlink(missing_ok=True)
    return bool(select.select([door], [], [], 0)[0])


def _reap(reports: dict[int, int]) -> None:
    """Tell of each child that has ended its status and the time that it took, imports included."""
    global _told
    while reports:
        child, status, used = os.wait4(-1, os.WNOHANG)
        if not child:
            return
        report = reports.pop(child)
        own = time.process_time()
        seconds, _told = used.ru_utime + used.ru_stime + own - _told, own
        with suppress(BrokenPipeError):
            os.write(report, f"{status} {seconds:.3f}\n".encode())
        os.close(report)


def _be(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Become the command: never returns."""
    code = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
            2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        os.chdir(request["cwd"])
        for name in os.environ.keys() - request["environment"].keys():
            del os.environ[name]
        os.environ.update(request["environment"])
        sys.argv[1:] = request["words"]
        if request["before"]:
            exec(request["before"], {})
        code = _exit_code(lambda: runpy.run_module("ramctl", run_name="__main__", alter_sys=True))
        code = _exit_code(threading._shutdown) or code  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _exit_code(run: Any) -> int:
    """What the interpreter makes of how a program ends."""
    try:
        run()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        sys.stderr.write(f"{ended.code}\n")
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _preload(modules: list[str]) -> None:
    for module in modules:
        with suppress(ImportError):
            import_module(module)
    if "ramctl.parsing.parse_run" in modules:
        from ramctl.errors import RamctlError
        from ramctl.parsing.parser import CaptionParser

        with suppress(RamctlError):  # without spaCy
            CaptionParser.open().tags("a horse")  # what is read for the first caption
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    _preload(sys.argv[2:])
    _serve(socket.socket(fileno=int(sys.argv[1])))
