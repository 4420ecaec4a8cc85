"""Files that are written whole or not at all, their locks, and text that is read."""

import fcntl
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ramctl.errors import RunProblem, UsageProblem

exists, is_file, is_folder = os.path.exists, os.path.isfile, os.path.isdir  # which never raise
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_DESCRIPTORS = (Path("/dev"), Path("/dev/fd"))  # of /dev/stdout and /dev/fd/3


def hidden_path(path: Path, end: str) -> Path:
    """`.FILE` with this end, beside FILE; hidden, as `*.jsonl` would take it for records."""
    return path.with_name(f".{path.name}{end}")


def user_folder(variable: str, usual: str) -> Path:
    """The folder of ramctl in $XDG_..., else below the home; it need not exist.

    RunProblem where there is no home, as in some containers.
    """
    base = Path(os.environ.get(variable, ""))
    try:
        return (base if base.is_absolute() else Path.home() / usual) / "ramctl"
    except RuntimeError as error:
        raise RunProblem(f"no home folder: set HOME, or {variable} to a folder") from error


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    mode = path.stat().st_mode if exists(path) else 0
    # /dev/stdout counts as a file where the shell sends it into one.
    is_plain = stat.S_ISREG(mode) and path.absolute().parent not in _DESCRIPTORS
    return bool(mode) and not is_plain and not stat.S_ISDIR(mode)


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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn an OSError in the block, but for a closed pipe, into a RunProblem with the file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """The content of a text file; UsageProblem where it is missing, else RunProblem."""
    try:
        content = path.read_bytes()
        if is_gzip(path.name):
            import gzip  # not for every help, as all that is imported in a function here

            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
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


def lock(descriptor: int, output: Path) -> None:
    """Lock an open file until it is closed; RunProblem where another run writes this output."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunProblem(f"{output}: locked; another run is in progress") from error
    except OSError:  # some mounts of NFS, Lustre and FUSE have no locks
        return


@contextmanager
def locked(folder: Path, output: Path) -> Iterator[None]:
    """A block that alone works in the folder of an output; RunProblem where another run does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, output)
        yield
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot, for a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_into_place(source: Path, target: Path) -> None:
    """Give a complete file its name; a link at `target` is followed."""
    sync(source)  # else a power cut could leave an empty file of that name
    source.replace(target.resolve())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends without an error.

    A pipe or device is written to directly; /dev/stdout goes on where the shell's file is, as `>>`.
    """
    if is_device(path):
        with naming(path), path.open("ab") as device:
            yield device
        return
    with naming(path):
        new = hidden_path(path.resolve(), ".ramctl-part")
        try:
            with new.open("wb") as stream:
                yield stream
            move_into_place(new, path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file as a whole; write to a pipe or device directly."""
    with replacing(path) as stream:
        stream.write(content)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block ends without an error.

    An older one is deleted only when the new one is in place.
    """
    import shutil

    target = target.resolve()
    new, old = (hidden_path(target, f".ramctl-{end}") for end in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
    with naming(target):
        new.mkdir(parents=True)
    try:
        yield new
        with naming(target):
            for path in (*new.rglob("*"), new):
                sync(path)
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                target.rename(old)
            new.rename(target)
            sync(target.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
