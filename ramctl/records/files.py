"""Files that appear whole or not at all, and what stands beside an output."""

import errno
import gzip
import os
import re
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.locks import Say, held, open_alone

STATE = ".state.jsonl"
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LEVEL = 6  # of gzip: its own default; 9 takes three times as long for a hundredth less
_OTHER_PACKING = (".bz2", ".xz", ".zst")


def part_path(output: Path) -> Path:
    """`FILE.part`, which becomes FILE when it is complete."""
    return output.with_name(output.name + ".part")


def state_path(output: Path) -> Path:
    """`FILE.state.jsonl`, which tells `--resume` what FILE holds."""
    return output.with_name(output.name + STATE)


def kept_path(path: Path) -> Path:
    """`FILE.kept`, a file without what is to be dropped, before it takes its place."""
    return path.with_name(path.name + ".kept")


def user_cache(name: str) -> Path:
    """A folder for what can be made again, in the user's cache folder; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ramctl" / name


def work_path(output: Path) -> Path:
    """`OUT.work`, the folder of what a run makes on its way to OUT."""
    return output.with_name(output.name + ".work")


def lock_path(output: Path) -> Path:
    """`OUT.part.lock`, which is there, and locked, while a run writes OUT.

    The part itself is no lock: it is renamed, and `--resume` goes by whether it is there.
    """
    return output.parent.resolve() / (output.name + ".part.lock")


def is_device(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to directly, never renamed over."""
    try:
        mode = path.stat().st_mode  # once: another process may make the file between two looks
    except OSError:
        return False
    # /dev/stdout counts as a file where the shell sends it into one.
    is_plain = stat.S_ISREG(mode) and path.absolute().parent not in (Path("/dev"), Path("/dev/fd"))
    return not is_plain and not stat.S_ISDIR(mode)


def full_disk(error: BaseException) -> str | None:
    """What the system says when there is no space to write; None for another error.

    Libraries that are not in Python, such as safetensors, have it in their messages only.
    """
    says = {code: os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)}
    number, text = getattr(error, "errno", None), str(error)
    return next((why for code, why in says.items() if number == code or why in text), None)


def is_url(name: str) -> bool:
    """Whether a name is a URL and no path."""
    return _URL.match(name) is not None


def plain_name(name: str) -> str:
    """A name without what follows a URL's path, `?...` and `#...`: it tells a file's kind."""
    return re.split(r"[?#]", name, maxsplit=1)[0] if is_url(name) else name


def is_gzip(name: str) -> bool:
    """Whether a file is compressed, by its name: then it is read and written so."""
    return plain_name(name).lower().endswith(".gz")


def unpacked_name(name: str) -> str:
    """The name without `.gz`: its ending tells what is inside."""
    plain = plain_name(name)
    return plain[:-3] if is_gzip(plain) else plain


def require_known_packing(name: str) -> None:
    """UsageProblem for a name that promises another compression than gzip."""
    if plain_name(name).lower().endswith(_OTHER_PACKING):
        raise UsageProblem(f"{name}: of compressed files only .gz is read and written")


@contextmanager
def packing(name: str, stream: BinaryIO) -> Iterator[BinaryIO]:
    """What writes to the stream, compressed where the name of its file asks for that."""
    if not is_gzip(name):
        yield stream
        return
    # Without a name and a time in its head: the same content gives the same file.
    with gzip.GzipFile("", "wb", _LEVEL, stream, mtime=0) as packed:
        yield cast(BinaryIO, packed)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make what goes wrong with a file in the block a RunProblem with its name."""
    try:
        yield
    except OSError as error:
        raise RunProblem(f"{path}: {error.strerror or error}") from error


def read_text(path: Path) -> str:
    """A text file, without a byte-order mark; UsageProblem where there is none.

    RunProblem when it cannot be read.
    """
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
    """The lines of a text file, which is read as by `read_text`."""
    return read_text(path).splitlines()


def require_distinct(**options: Path | None) -> None:
    """UsageProblem when two options name one file, which both would write.

    Also for a compression that is not written.
    """
    named: dict[Path, str] = {}
    for name, path in options.items():
        if path is None or is_device(path):
            continue
        require_known_packing(str(path))
        option = "-o" if name == "output" else f"--{name.replace('_', '-')}"
        other = named.setdefault(path.resolve(), option)
        if other != option:
            raise UsageProblem(f"{other} and {option} name one file, {path}")


@contextmanager
def output_lock(*outputs: Path | None, say: Say = lambda message: None) -> Iterator[None]:
    """Hold the locks of some outputs, with their parts, states and work folders, for a block.

    RunProblem when another run writes one of them. None, pipes and devices
    need no lock, and a thread may lock again what it has locked. `say` is told of an output on a
    file system without locks.
    """
    with ExitStack() as stack:
        for output in outputs:
            if output is not None and not is_device(output):
                stack.enter_context(held(lock_path(output), output, say))
        yield


def sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
    with suppress(OSError):
        sync_file(path)


def sync_file(path: Path) -> None:
    """Have the content of a file on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Have a folder with everything in it on the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            sync_file(Path(folder) / name)
        sync_folder(Path(folder))


def remove_folder(path: Path) -> None:
    """Delete a folder so that no crash leaves half of it under its name."""
    gone = path.with_name(f".{path.name}.ramctl-gone")
    shutil.rmtree(gone, ignore_errors=True)
    if path.exists():
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a complete file, whose content is on the disk, so that the new name is there too."""
    source.replace(target)
    sync_folder(target.parent)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of `path` when the block ends without an error.

    It is on the disk by then, compressed if it is called so. Two processes that replace one file do
    so one after the other. A pipe or device is written to directly.
    """
    if is_device(path):
        with path.open("wb") as device, packing(path.name, device) as target:
            yield target
        return
    part = part_path(path)
    with naming(path), open_alone(part) as stream:
        try:
            with packing(path.name, stream) as target:
                yield target
            stream.flush()
            os.fsync(stream.fileno())
            move_into_place(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a whole file so that no reader sees half of it; a pipe or device directly."""
    with replacing(path) as stream:
        stream.write(content)
