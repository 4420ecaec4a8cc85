"""Atomic files, the files beside an output, and the locks of outputs."""

import fcntl
import gzip
import io
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ramctl.errors import RunProblem, UsageProblem

exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir  # which never raise
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_OTHER_PACKING = (".bz2", ".xz", ".zst")
_DESCRIPTORS = (Path("/dev"), Path("/dev/fd"))  # of /dev/stdout and /dev/fd/3
_MAX_NAME = 240  # bytes of a hidden name before its end: file systems allow 255
_locked: set[Path] = set()  # by this process


def followed(path: Path) -> Path:
    """Where a link leads; another path as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def part_path(output: Path) -> Path:
    """`FILE.part`, renamed to FILE when it is complete."""
    output = followed(output)
    return output.with_name(output.name + ".part")


def hidden_path(output: Path, end: str) -> Path:
    """`.FILE` with this end, beside FILE; hidden, as `*.jsonl` would take it for records."""
    output = followed(output)
    return output.with_name(os.fsdecode(os.fsencode(f".{output.name}")[:_MAX_NAME]) + end)


def state_path(output: Path) -> Path:
    """`.FILE.state.jsonl`, which lists for `--resume` the inputs in FILE."""
    return hidden_path(output, ".state.jsonl")


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


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    mode = path.stat().st_mode if exists(path) else 0
    # /dev/stdout counts as a file where the shell sends it into one.
    is_plain = stat.S_ISREG(mode) and path.absolute().parent not in _DESCRIPTORS
    return bool(mode) and not is_plain and not stat.S_ISDIR(mode)


def open_device(path: Path) -> BinaryIO:
    """Open a pipe or device to write; `/dev/stdout` goes on where the shell's file is, as `>>`."""
    number = {"stdout": "1", "stderr": "2"}.get(path.name, path.name)
    if path.absolute().parent in _DESCRIPTORS and number.isdecimal():
        return os.fdopen(os.dup(int(number)), "wb")  # by its name it would be emptied
    return path.open("wb")


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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError in the block, but for a closed pipe, into a RunProblem with the file."""
    try:
        yield
    except BrokenPipeError:
        raise
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


def _open_locked(path: Path, output: Path) -> BinaryIO:
    """Open, or make, and lock a file of an output; RunProblem when another run has it locked."""
    while True:
        stream = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), "wb")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            raise RunProblem(f"{output}: locked; another run is in progress") from error
        except OSError:  # some mounts of NFS, Lustre and FUSE have no locks
            return stream
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                return stream
        stream.close()  # the holder before has renamed or removed the file


@contextmanager
def output_lock(*outputs: Path | None) -> Iterator[None]:
    """Lock some outputs for a block by `.FILE.lock`; RunProblem when another run writes one.

    None, pipes and devices need no lock, and a process may lock twice.
    """
    with ExitStack() as stack:
        for output in outputs:
            if output is not None and not is_device(output):
                stack.enter_context(_lock(hidden_path(output.absolute(), ".lock"), output))
        yield


@contextmanager
def _lock(path: Path, output: Path) -> Iterator[None]:
    if path in _locked:
        yield
        return
    with naming(output):
        stream = _open_locked(path, output)
    with stream:
        _locked.add(path)
        try:
            yield
        finally:
            _locked.remove(path)
            path.unlink(missing_ok=True)


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
    """Open a file that replaces `path`, a link followed, when the block ends without an error.

    It is flushed to the disk. A pipe or device is written to directly.
    """
    if is_device(path):
        with naming(path), open_device(path) as device:
            yield device
        return
    new = hidden_path(path, ".ramctl-part")
    with naming(path), _open_locked(new, path) as stream:
        try:
            stream.truncate(0)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            move_into_place(new, followed(path))
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file as a whole; write to a pipe or device directly."""
    with replacing(path) as stream:
        stream.write(content)
