"""A store at `counted://bucket/...`: a folder that notes what is opened, and that can fail.

Other processes know it by `environment`, through the entry point of an installed package.
"""

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.spec import AbstractFileSystem

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = "COUNTED_FOLDER"
LOG, FAILURES, SLOW = "opened.log", "failures", "slow"


class CountedFileSystem(AbstractFileSystem):
    """The folder in `COUNTED_FOLDER`."""

    protocol: ClassVar[str] = "counted"
    cachable = False

    def _place(self, path: str) -> Path:
        folder = Path(os.environ[FOLDER])
        left = folder / FAILURES
        if left.exists() and (number := int(left.read_text())):
            left.write_text(str(number - 1))
            raise ConnectionResetError("the store is not there")
        return folder / self._strip_protocol(path).lstrip("/")

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        facts, kind = self._place(path).stat(), "file"
        if self._place(path).is_dir():
            kind = "directory"
        return {"name": path, "size": facts.st_size, "type": kind, "mtime": facts.st_mtime_ns}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        names = [
            f"{path.rstrip('/')}/{entry.name}" for entry in sorted(self._place(path).iterdir())
        ]
        return [self.info(name) for name in names] if detail else names

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        place = self._place(path)
        stream = place.open(mode)
        with (Path(os.environ[FOLDER]) / LOG).open("a") as log:
            log.write(f"{mode} {path}\n")
        return stream

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        with self.open(rpath, "wb") as target:
            content = Path(lpath).read_bytes()
            for start in range(0, len(content), 1 << 16):
                target.write(content[start : start + (1 << 16)])
                target.flush()
                if (Path(os.environ[FOLDER]) / SLOW).exists():
                    time.sleep(0.02)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._place(path).mkdir(parents=True, exist_ok=exist_ok)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        whole = Path(os.environ[FOLDER]) / "copy"  # that of a store is there as a whole, or not
        whole.write_bytes(self._place(path1).read_bytes())
        whole.replace(self._place(path2))

    def rm_file(self, path: str) -> None:
        self._place(path).unlink()


class Store:
    """The test's side of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bucket = folder / "bucket"
        self.bucket.mkdir(parents=True)
        package = folder / "packages" / "counted-1.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text("Metadata-Version: 2.1\nName: counted\nVersion: 1\n")
        (package / "entry_points.txt").write_text(
            "[fsspec.specs]\ncounted = tests.remote_store:CountedFileSystem\n"
        )
        fsspec.register_implementation("counted", CountedFileSystem, clobber=True)

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to know the store."""
        places = f"{REPOSITORY}{os.pathsep}{self.folder / 'packages'}"
        return {FOLDER: str(self.folder), "PYTHONPATH": places}

    def opened(self) -> list[str]:
        """The files that were opened to be read, in order."""
        log = self.folder / LOG
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.removeprefix("rb bucket/") for line in lines if line.startswith("rb ")]

    def fail(self, times: int) -> None:
        """Have the next requests fail."""
        (self.folder / FAILURES).write_text(str(times))


def write_tar(path: Path, **members: bytes) -> None:
    """An archive of some files."""
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            shard.addfile(header, io.BytesIO(content))
