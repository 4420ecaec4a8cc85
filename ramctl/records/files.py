"""Atomic files, the files beside an output, and the locks of outputs.

Locks are the kernel's (flock; byte-range locks on NFS): a killed process leaves none behind. The
package filelock would leave its files beside the outputs.
"""

import errno
import fcntl
import gzip
import io
import math
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.pipes import mark_read

STATE = ".state.jsonl"
NOT_PLAIN = "not a regular file; links are not followed here"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LEVEL = 6  # of gzip, its default; 9 takes three times as long and saves 1 %
_OTHER_PACKING = (".bz2", ".xz", ".zst")
# Errors of file systems without locks: some mounts of NFS and Lustre, and FUSE.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
_DESCRIPTORS = (Path("/dev"), Path("/dev/fd"))  # of /dev/stdout and /dev/fd/3
_WAIT_S = 0.1  # between two attempts to take a lock
_NEW_FILE = ".ramctl-part"  # ends the hidden name of a file before it replaces another
_MAX_NAME = 240  # bytes of that name before its end: file systems allow 255
Notify = Callable[[str], None]
_held: dict[Path, tuple[int, int]] = {}  # descriptor and thread of each lock of this process


def part_path(output: Path) -> Path:
    """`FILE.part`, renamed to FILE when it is complete."""
    return output.with_name(output.name + ".part")


def state_path(output: Path) -> Path:
    """`.FILE.state.jsonl`, which lists for `--resume` the inputs in FILE.

    It is hidden, so that `cat *.jsonl` and `ramctl ... *.jsonl` do not take it for records.
    """
    return output.with_name(f".{output.name}{STATE}")


def old_state_path(output: Path) -> Path:
    """`FILE.state.jsonl`, the name in earlier versions."""
    return output.with_name(output.name + STATE)


def present_state(output: Path) -> Path:
    """The state of an output under its old name if it has only that, else under its name."""
    old, state = old_state_path(output), state_path(output)
    return old if old.exists() and not state.exists() else state


def new_file_path(path: Path) -> Path:
    """`.FILE.ramctl-part`, the new content of FILE until it is complete.

    Two long names that begin alike share it: the second writer waits for the first.
    """
    return path.with_name(os.fsdecode(os.fsencode(f".{path.name}")[:_MAX_NAME]) + _NEW_FILE)


def is_new_file(path: Path) -> bool:
    """Whether a file is a `new_file_path`, left by a killed run."""
    return path.name.startswith(".") and path.name.endswith(_NEW_FILE)


def kept_path(path: Path) -> Path:
    """`FILE.kept`, the compacted copy that replaces FILE."""
    return path.with_name(path.name + ".kept")


def user_folder(variable: str, usual: str) -> Path:
    """The folder of ramctl in $XDG_..., else below the home; it need not exist.

    A relative $XDG_... is ignored, as its specification demands. RunProblem where there is no home,
    as in some containers.
    """
    base = Path(os.environ.get(variable, ""))
    try:
        return (base if base.is_absolute() else Path.home() / usual) / "ramctl"
    except RuntimeError as error:
        raise RunProblem(f"no home folder: set HOME, or {variable} to a folder") from error


def user_cache(name: str) -> Path:
    """A folder in the cache folder of the user."""
    return user_folder("XDG_CACHE_HOME", ".cache") / name


def work_path(output: Path) -> Path:
    """`OUT.work`, the folder of the intermediate files of OUT."""
    return output.with_name(output.name + ".work")


def lock_path(output: Path) -> Path:
    """`OUT.part.lock`, which exists, and is locked, while a run writes OUT.

    The part cannot be the lock: it is renamed, and `--resume` checks whether it exists.
    """
    return Path(os.path.realpath(output.parent), output.name + ".part.lock")


def beside(output: Path) -> list[Path]:
    """The files that a run may make beside an output."""
    if not output.name:  # `.` is a folder, which is refused later
        return []
    part, state = part_path(output), state_path(output)
    kept = [kept_path(part), kept_path(state)]
    return [part, state, old_state_path(output), *kept, lock_path(output), work_path(output)]


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    try:
        mode = path.stat().st_mode  # once: another process may make the file meanwhile
    except OSError:
        return False
    # /dev/stdout counts as a file where the shell sends it into one.
    is_plain = stat.S_ISREG(mode) and path.absolute().parent not in _DESCRIPTORS
    return not is_plain and not stat.S_ISDIR(mode)


def open_device(path: Path) -> BinaryIO:
    """Open a pipe or device to write; `/dev/stdout` goes on where the shell's file is, as `>>`."""
    number = {"stdout": "1", "stderr": "2"}.get(path.name, path.name)
    if path.absolute().parent in _DESCRIPTORS and number.isdecimal():
        return os.fdopen(os.dup(int(number)), "wb")  # by its name it would be emptied
    return path.open("wb")


def full_disk(error: BaseException) -> str | None:
    """The system's message for an error that means "no space left"; None for another error.

    Libraries that are not in Python, such as safetensors, give it in the text only.
    """
    messages = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
    number, text = getattr(error, "errno", None), str(error)
    return next((why for code, why in messages.items() if number == code or why in text), None)


def is_url(name: str) -> bool:
    """Whether a name is a URL, not a path."""
    return _URL.match(name) is not None


def plain_name(name: str) -> str:
    """A name without the `?...` and `#...` of a URL: its ending shows the kind of file."""
    return re.split(r"[?#]", name, maxsplit=1)[0] if is_url(name) else name


def is_gzip(name: str) -> bool:
    """Whether a file is compressed with gzip, by its name."""
    return plain_name(name).lower().endswith(".gz")


def unpacked_name(name: str) -> str:
    """The name without `.gz`: its ending shows the format of the content."""
    plain = plain_name(name)
    return plain[:-3] if is_gzip(plain) else plain


def require_known_packing(name: str) -> None:
    """Raise UsageProblem for a name of another compression than gzip."""
    if plain_name(name).lower().endswith(_OTHER_PACKING):
        raise UsageProblem(f"{name}: compressed files must be .gz")


def packing(name: str, stream: BinaryIO) -> AbstractContextManager[BinaryIO]:
    """A stream that writes to `stream`, compressed if the file is called `.gz`."""
    if not is_gzip(name):
        return nullcontext(stream)
    # Without name and time in its header: the same content gives the same file.
    return cast(BinaryIO, gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0))


def is_plain(path: Path, max_bytes: float = math.inf) -> bool:
    """Whether a path is a regular file or does not exist: no link, pipe, device or folder."""
    try:
        facts = path.lstat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return True
        raise
    return stat.S_ISREG(facts.st_mode) and facts.st_size <= max_bytes


def open_plain(path: Path, flags: int) -> int:
    """Open a file that ramctl writes; RunProblem for a link, pipe, device or folder.

    In a shared folder a link could lead the output elsewhere, and a FIFO make the run wait.
    """
    if not is_plain(path):
        raise RunProblem(f"{path}: {NOT_PLAIN}")
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def create(path: Path) -> BinaryIO:
    """Open a new file to write; it replaces one of that name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    return os.fdopen(open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def open_to_append(path: Path) -> BinaryIO:
    """Open a file, which may be new, to append to it or to cut it.

    One with another hard link (a snapshot's) is copied first.
    """
    stream: BinaryIO = os.fdopen(open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT), "a+b")
    if os.fstat(stream.fileno()).st_nlink > 1:
        with stream, create(new_file_path(path)) as copy:
            stream.seek(0)
            shutil.copyfileobj(stream, copy)
        new_file_path(path).replace(path)
        stream = open_to_append(path)
    return stream


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a RunProblem that names the file."""
    try:
        yield
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error


class _Scratch(io.FileIO):
    def write(self, data: Any) -> int:
        with naming(Path(tempfile.gettempdir())):
            return super().write(data)


def scratch_file() -> BinaryIO:
    """A temporary file without a name; its RunProblems name its folder."""
    with naming(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        return io.BufferedRandom(_Scratch(os.dup(file.fileno()), "r+b"))


def read_text(path: Path) -> str:
    """The content of a text file; UsageProblem where it is missing, else RunProblem."""
    require_known_packing(str(path))
    mark_read(path)
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if is_gzip(path.name) else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunProblem(f"{path}: not UTF-8 text at byte {error.start}") from error
    except FileNotFoundError as error:
        raise UsageProblem(f"{path}: no such file") from error
    except (OSError, EOFError, zlib.error) as error:
        raise RunProblem(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file; problems as of `read_text`."""
    return read_text(path).splitlines()


def read_pairs(path: Path, form: str) -> Iterator[tuple[str, str, str]]:
    """Place, name and value of each line `name<TAB>value`, without blank lines and comments.

    RunProblem for any other line, which should be of the `form`.
    """
    for number, line in enumerate(read_lines(path), 1):
        if line.strip() and not line.startswith("#"):
            name, _, value = map(str.strip, line.partition("\t"))
            if not (name and value):
                raise RunProblem(f"{path}:{number}: expected {form}")
            yield f"{path}:{number}", name, value


@contextmanager
def output_lock(*outputs: Path | None, notify: Notify = lambda message: None) -> Iterator[None]:
    """Lock some outputs, with their parts, states and work folders, for a block.

    RunProblem when another run writes one of them. None, pipes and devices need no lock, and a
    thread may lock twice. `notify` reports a file system without locks.
    """
    with ExitStack() as stack:
        for output in outputs:
            if output is not None and not is_device(output):
                stack.enter_context(held(lock_path(output), output, notify))
        yield


def _leave_to_parent() -> None:
    # A forked process must not keep the locks of its parent.
    for descriptor, _ in _held.values():
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def locked(path: Path, notify: Notify) -> Iterator[None]:
    """Lock a file, which stays, for a block; wait for another run, which `notify` reports.

    RunProblem where there are no locks.
    """
    try:
        try:
            descriptor = _open_locked(path, waits=False)
        except BlockingIOError:
            notify(f"{path}: locked; waiting for that run to end")
            descriptor = _open_locked(path, waits=True)
    except OSError as error:
        what = "cannot be locked: " if error.errno in _NO_LOCKS else ""
        raise RunProblem(f"{path}: {what}{error.strerror or error}") from error
    with _held_until_end(path, descriptor, remove=False):
        yield


@contextmanager
def held(path: Path, output: Path, notify: Notify) -> Iterator[None]:
    """Lock an output by the file `path`, which exists for the block only.

    RunProblem if `path` is not a lock file, which is empty.
    """
    if path in _held and _held[path][1] == threading.get_ident():
        yield
        return
    try:
        if not is_plain(path, max_bytes=0):
            raise RunProblem(f"{path}: not a ramctl lock file; move it away or name another output")
        descriptor = _open_locked(path, waits=False)
    except BlockingIOError as error:
        raise RunProblem(f"{output}: locked; another run is in progress") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise RunProblem(f"{output}: {error.strerror or error}") from error
        path.unlink(missing_ok=True)
        notify(f"{output}: this file system has no locks; do not start a second run on it")
        descriptor = None
    with nullcontext() if descriptor is None else _held_until_end(path, descriptor, remove=True):
        yield


@contextmanager
def _held_until_end(path: Path, descriptor: int, *, remove: bool) -> Iterator[None]:
    _held[path] = descriptor, threading.get_ident()
    try:
        yield
    finally:
        if _held.pop(path, None):  # else this process was forked meanwhile
            if remove:
                path.unlink(missing_ok=True)
            os.close(descriptor)


def open_alone(path: Path) -> BinaryIO:
    """Open and empty a file once no other process has it open by this function."""
    try:
        descriptor = _open_locked(path, waits=True)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        descriptor = open_plain(path, os.O_RDWR)
    if os.fstat(descriptor).st_nlink > 1:  # the other link may be a file of the user
        path.unlink()
        os.close(descriptor)
        return open_alone(path)
    os.ftruncate(descriptor, 0)
    return os.fdopen(descriptor, "wb")


def is_open_alone(path: Path) -> bool:
    """Whether a process has a file open by `open_alone`, or that cannot be known."""
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _open_locked(path: Path, *, waits: bool) -> int:
    """Open, or make, and lock a file; BlockingIOError when it is held and not waited for."""
    while True:
        descriptor = open_plain(path, os.O_RDWR | os.O_CREAT)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waits:
                        raise
                # A blocking call would miss a signal that comes just before it.
                time.sleep(_WAIT_S)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before has removed the file: lock the new one


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to the disk, if its file system can."""
    with suppress(OSError):
        sync_file(path)


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Flush a folder with its content to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder) / name)
        sync_folder(Path(folder))


def remove_folder(path: Path) -> None:
    """Delete a folder; a crash never leaves half of it under its name."""
    gone = path.with_name(f".{path.name}.ramctl-gone")
    remove_all(gone)
    if path.exists():
        path.rename(gone)
        remove_all(gone)


def remove_all(path: Path) -> None:
    """Delete a file, a link or, as far as possible, a folder, whose name only ramctl uses."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a complete file and flush the new name to the disk."""
    source.replace(target)
    sync_folder(target.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends without an error.

    It is flushed to the disk, and compressed if its name ends in .gz. Processes that replace the
    same file wait for each other. A pipe or device is written to directly.
    """
    if is_device(path):
        with open_device(path) as device, packing(path.name, device) as target:
            yield target
        return
    new = new_file_path(path)
    with naming(path), open_alone(new) as stream:
        try:
            with packing(path.name, stream) as target:
                yield target
            stream.flush()
            os.fsync(stream.fileno())
            move_into_place(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file as a whole; write to a pipe or device directly."""
    with replacing(path) as stream:
        stream.write(content)
