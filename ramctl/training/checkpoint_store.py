"""Copies of a run's checkpoints at a URL or in a folder, from which any machine can go on.

With them is what else of OUT.work a run cannot make again exactly: its plan, its labels and word
pieces, the hash of its records, and the best model so far.
"""

import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from ramctl.checkpoints.bundle import META, TOKENIZER, Bundle, file_sha256
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import LABELS
from ramctl.records.files import remove_folder, replacing
from ramctl.records.ownership import FolderMark
from ramctl.records.remote import COPY_BYTES, attempted, exists, file_system, open_url
from ramctl.training.checkpoint import DAMAGED, KEPT, PATTERN, is_intact, list_checkpoints

# What a work folder holds, by name.
PLAN = "run.json"
RECORDS_HASH = "records.sha256"
CHECKPOINTS = "checkpoints"
BEST = "best"
FEATURES = "features"
BEST_PATTERN = "best-*-*.tar"  # step and hash

RUN = FolderMark(
    "the folder of a training run",
    ".ramctl-train",
    (
        ".ramctl-train", f"*{PLAN}*", f"{RECORDS_HASH}*", f"{LABELS}*", f"{TOKENIZER}*",
        "wandb.id*", "records*.jsonl*", "*.index*", "*.f16", f"{BEST}.*", f"{BEST}/*",
        f".{BEST}.*", BEST_PATTERN, f"{CHECKPOINTS}/step-*", "val/*", f"{FEATURES}/*",
    ),
)  # fmt: skip
RUN_FILES = (RUN.file, LABELS, TOKENIZER, RECORDS_HASH, PLAN)  # the plan last: then it is a run
_STORED = (*RUN_FILES, PATTERN, BEST_PATTERN)
_PARTS = tuple(f"{name}.part" for name in _STORED)
Say = Callable[[str], None]


class CheckpointStore:
    """The copies at one URL, which are those of one run, and the work folder that they are of."""

    def __init__(self, url: str, work: Path) -> None:
        self.url, self.work = url.rstrip("/"), work
        self._stored: dict[str, bytes] = {}  # content of small files, by name

    def require_ours(self) -> None:
        """UsageProblem where something is stored here that no run has put there."""
        names = names_at(self.url)
        if names and RUN.file not in names:
            raise UsageProblem(f"{self.url}: exists, but is not {RUN.kind}; name another path")

    def has_run(self) -> bool:
        """Whether a run is stored here."""
        return exists(self._at(PLAN))

    def read_plan(self) -> bytes:
        """The stored plan."""
        copy = self.work / f"stored-{PLAN}"
        self._download(PLAN, copy)
        content = copy.read_bytes()
        copy.unlink()
        return content

    def store(self, checkpoint: Path) -> None:
        """Copy a checkpoint and what belongs to it, and delete all but the last two.

        RunProblem or OSError when that fails; what is stored stays good.
        """
        for name in RUN_FILES:
            path = self.work / name
            if path.is_file() and self._stored.get(name) != (content := path.read_bytes()):
                upload(path, self._at(name))
                self._stored[name] = content
        # Before the checkpoint, which must not be newer than the best model.
        self._store_best()
        upload(checkpoint, self._at(checkpoint.name))
        for pattern, kept in ((PATTERN, KEPT), (BEST_PATTERN, 1), *((part, 0) for part in _PARTS)):
            names = self._names(pattern)
            for name in names[: len(names) - kept]:
                delete(self._at(name))

    def _store_best(self) -> None:
        best = self.work / BEST
        meta = best / META
        if not meta.is_file() or self._stored.get(BEST) == (content := meta.read_bytes()):
            return
        step = Bundle.open(best).meta["provenance"]["measured"]["step"]
        packed = self.work / f"{BEST}.tar"
        with tarfile.open(packed, "w") as archive:
            archive.add(best, BEST)
        if meta.read_bytes() != content:
            raise RunProblem(f"{best} changed while it was packed")
        upload(packed, self._at(f"{BEST}-{step:08d}-{file_sha256(packed)[:16]}.tar"))
        packed.unlink()
        self._stored[BEST] = content

    def fetch_run_files(self) -> None:
        """Copy all but the plan into the work folder."""
        for name in RUN_FILES:
            if name != PLAN and exists(self._at(name)):
                self._download(name, self.work / name)

    def fetch_checkpoint(self, say: Say) -> None:
        """Copy the newest intact checkpoint into the work folder where it is newer than those.

        The best model comes with it. RunProblem when all that are stored are damaged.
        """
        folder = self.work / CHECKPOINTS
        own = list_checkpoints(folder)
        names = [name for name in self._names(PATTERN) if not own or name > own[-1].name]
        if not names:
            return
        if self._fetch_intact(names, folder, say) is None:
            if own:
                return
            raise RunProblem(f"{self.url}: every checkpoint is damaged; start with --restart")
        packed = self._fetch_intact(self._names(BEST_PATTERN), self.work, say)
        if packed is not None:
            remove_folder(self.work / BEST)
            with tarfile.open(packed) as archive:
                archive.extractall(self.work, filter="data")
            packed.unlink()

    def _fetch_intact(self, names: list[str], folder: Path, say: Say) -> Path | None:
        """The copy of the newest file that is what its name says."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in reversed(names):
            path = folder / name
            self._download(name, path)
            if is_intact(path):
                return path
            path.unlink()
            say(f"{self._at(name)}: {DAMAGED}")
        return None

    def remove(self) -> None:
        """Delete the run that is stored here."""
        for pattern in (PLAN, *_PARTS, *reversed(_STORED)):  # the mark last
            for name in self._names(pattern):
                delete(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self.url}/{name}"

    def _names(self, pattern: str) -> list[str]:
        return [name for name in names_at(self.url) if fnmatch(name, pattern)]

    def _download(self, name: str, target: Path) -> None:
        try:
            download(self._at(name), target)
        except FileNotFoundError as error:
            raise RunProblem(f"{self._at(name)}: no such file") from error


def upload(source: Path, url: str) -> None:
    """Copy a file to a URL or path, where it appears whole or not at all."""

    def put() -> None:
        system, path = file_system(url)
        system.makedirs(path.rpartition("/")[0], exist_ok=True)
        system.put_file(str(source), f"{path}.part")
        system.mv(f"{path}.part", path)

    attempted(url, put)


def download(url: str, target: Path) -> None:
    """Copy a file from a URL or path; FileNotFoundError where there is none."""
    with open_url(url, COPY_BYTES) as source, replacing(target) as stream:
        shutil.copyfileobj(source, stream, COPY_BYTES)


def names_at(url: str) -> list[str]:
    """The names in a folder at a URL or path, sorted; none where there is no folder."""

    def look() -> list[str]:
        system, path = file_system(url)
        found = system.ls(path, detail=False)
        return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    try:
        return attempted(url, look)
    except FileNotFoundError:
        return []


def delete(url: str) -> None:
    """Delete a file, if it is there."""

    def remove() -> None:
        system, path = file_system(url)
        system.rm_file(path)

    with suppress(FileNotFoundError):
        attempted(url, remove)
