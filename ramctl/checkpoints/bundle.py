"""The bundle: a folder with a model and all that tagging with it needs, but no code."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import orjson

from ramctl.checkpoints.hub import HUB, KNOWN, hub_hint, local_path
from ramctl.errors import RunProblem, UsageProblem, did_you_mean
from ramctl.records.files import (
    naming,
    output_lock,
    remove_all,
    sync_folder,
    sync_tree,
    user_folder,
)
from ramctl.records.labels import DEFAULT_THRESHOLD, LABELS, Labels, normalise
from ramctl.records.record import JsonObject

if TYPE_CHECKING:
    import numpy as np

    from ramctl.model.preset import PreprocessConfig, Preset

FORMAT = 2
MAX_BATCH = 4096  # photos, that a bundle may ask for
META = "bundle.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"  # the captioning branch's vocabulary
TEXT_FOLDER = "text"  # embeds words that the model was not trained on
PHOTO_GRAPH = "photo.onnx"  # photos to tokens and global features
LABEL_GRAPH = "labels.onnx"  # these and rows of labels to logits
AXES = "axes.safetensors"  # of the photos' embeddings
REFERENCE = "reference.npy"  # (R, C) pooled features of photos of all kinds, in half precision
FIT = "fit.safetensors"  # of `ramctl fit`
CARD = "README.md"
EMBEDDED = "mini"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; `meta` is the content of its bundle.json.

    Keys of `meta`: `format`, `architecture` (the preset's model table), `preprocess`, `preset`
    (the preset's other tables), `thresholds` (`threshold`, `caption`), `precisions` (rows of
    threshold, precision, tags a photo), `salience` (`slope`, `main`), `open_set` (`calibration` of
    words that are no labels), `dtype` (of photo.onnx, fp32 if absent), `provenance`, `files`
    (name -> sha256, bytes).
    """

    path: Path
    meta: JsonObject

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> "Bundle":
        """The bundle in a folder; RunProblem names a file of wrong size or, with `verify`, hash."""
        meta_path = path / META
        _require_inside(meta_path, path)
        _require_inside(path / LABELS, path)
        try:
            meta = orjson.loads(meta_path.read_bytes())
        except FileNotFoundError as error:
            raise RunProblem(f"{path}: not a bundle ({META} is missing)") from error
        except (OSError, ValueError) as error:
            raise RunProblem(f"{meta_path}: {error}") from error
        version = meta.get("format") if isinstance(meta, dict) else None
        if version != FORMAT:
            remedy = "convert or train it again"
            raise RunProblem(
                f"{meta_path}: format {version!r}, this ramctl reads {FORMAT}: {remedy}"
            )
        _check_meta(meta_path, meta)
        for name, facts in meta.get("files", {}).items():
            file, expected = path / name, facts.get("bytes")
            if not file.exists():
                raise RunProblem(f"{file}: missing from the bundle")
            _require_inside(file, path)
            if (size := file.stat().st_size) != expected:
                raise RunProblem(f"{file}: {size} bytes instead of {expected}")
            if verify and file_sha256(file) != facts.get("sha256"):
                raise RunProblem(f"{file}: content differs from its hash in {META}")
        return cls(path, meta)

    @cached_property
    def preset(self) -> "Preset":
        """The preset that the model was built and trained with; RunProblem if it is damaged."""
        from ramctl.model.preset import preset_from_meta

        with self.problems():
            return preset_from_meta(self.meta)

    @cached_property
    def preprocess(self) -> "PreprocessConfig":
        """How photos are prepared; unlike `preset` it does not depend on any other table."""
        from ramctl.model.preset import PreprocessConfig, read_table

        with self.problems():
            return read_table(PreprocessConfig, self.meta.get("preprocess", {}), "preprocess")

    @contextmanager
    def problems(self) -> Iterator[None]:
        """Report what is wrong with a preset as a problem of the bundle."""
        try:
            yield
        except UsageProblem as problem:
            raise RunProblem(f"{self.path / META}: {problem.message}") from problem

    @property
    def batch_size(self) -> int | None:
        """Photos per batch where the user names no number."""
        size = self.meta.get("preset", {}).get("batch_size")
        return None if size is None else int(size)

    @cached_property
    def labels(self) -> Labels:
        """The label system in id order."""
        return Labels.read(self.path / LABELS)

    @property
    def threshold(self) -> float:
        """The threshold of labels that have none."""
        return float(self.meta.get("thresholds", {}).get("threshold", DEFAULT_THRESHOLD))

    def threshold_for(self, precision: float) -> float:
        """The lowest threshold at which this fraction of the tags is right on photos held out.

        RunProblem where the bundle has no table, or none reaches it.
        """
        table = self.meta.get("precisions", [])
        if not table:
            raise RunProblem(f"{self.path}: is not calibrated: use --threshold, not --precision")
        if reached := [row[0] for row in table if row[1] >= precision]:
            return float(min(reached))
        best = max(row[1] for row in table)
        raise RunProblem(f"no threshold reaches precision {precision:g}: at most {best:.3f}")

    @cached_property
    def fit(self) -> "dict[str, np.ndarray]":
        """The tensors that `ramctl fit` added; empty without."""
        from safetensors.numpy import load_file

        return load_file(self.path / FIT) if self.has(FIT) else {}

    @property
    def dtype(self) -> str:
        """The number format of the photo graph."""
        return str(self.meta.get("dtype", "fp32"))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that outputs depend on, which is all but the model card."""
        listed = sorted(self.meta.get("files", {}).items())
        hashes = [[name, facts["sha256"]] for name, facts in listed if name != CARD]
        names = ("architecture", "preprocess", "thresholds", "salience", "open_set")
        parts = [hashes, *(self.meta.get(name) for name in names)]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def file_sizes(self) -> dict[str, int]:
        """The bytes of each file that the bundle lists, bundle.json itself excepted."""
        return {name: int(facts["bytes"]) for name, facts in self.meta.get("files", {}).items()}

    def has(self, name: str) -> bool:
        """Whether the bundle lists a file."""
        return name in self.meta.get("files", {})

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, "np.ndarray"]:
        """The named tensors, or all, as stored; RunProblem names one that is not there."""
        with self._weights() as weights:
            chosen = list(weights.keys()) if names is None else list(names)
            return {name: weights.get_tensor(name) for name in chosen}

    def reference(self, width: int) -> "np.ndarray[Any, Any]":
        """The features (R, `width`) of REFERENCE; RunProblem where they do not fit."""
        import numpy as np

        path = self.path / REFERENCE
        try:
            # Mapped, so that a damaged header cannot ask for terabytes.
            values = np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise RunProblem(f"{path}: {error}") from error
        shape = (len(values), width)
        if values.dtype.kind != "f" or values.shape != shape or not np.isfinite(values).all():
            raise RunProblem(f"{path}: does not fit the bundle")
        return values

    def tensor_shapes(self) -> dict[str, list[int]]:
        """The shape of each stored tensor."""
        with self._weights() as weights:
            return {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118

    @contextmanager
    def _weights(self) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        path = self.path / WEIGHTS
        try:
            with safe_open(path, framework="numpy") as weights:
                yield weights
        except (SafetensorError, OSError) as error:
            raise RunProblem(f"{path}: cannot read the weights: {error}") from error


def _check_meta(path: Path, meta: JsonObject) -> None:
    """RunProblem for values that no bundle has; the preset's own tables are checked when read."""
    listed, thresholds = meta.get("files", {}), meta.get("thresholds", {})
    preset, preprocess = meta.get("preset", {}), meta.get("preprocess", {})
    if not all(isinstance(table, dict) for table in (listed, thresholds, preset, preprocess)):
        raise RunProblem(f"{path}: files, thresholds, preset and preprocess must be tables")
    for name, facts in listed.items():
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\0" in name:
            raise RunProblem(f"{path}: {name!r} leads outside the bundle")
        if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
            raise RunProblem(f"{path}: {name!r} has no size and hash")
    if not all(isinstance(x, int | float) and isfinite(x) for x in thresholds.values()):
        raise RunProblem(f"{path}: thresholds must be numbers")
    size = preset.get("batch_size", 1)
    if not isinstance(size, int) or not 1 <= size <= MAX_BATCH:
        raise RunProblem(f"{path}: preset.batch_size is {size!r}, not a number up to {MAX_BATCH}")


def _require_inside(file: Path, bundle: Path) -> None:
    """RunProblem for a file of a bundle that is a pipe or the like, or a link out of its folder.

    A stranger's bundle shall not have other files of the user read. In the hub's cache the files of
    a snapshot are links to its `blobs`.
    """
    if not file.exists():
        return
    real, folder = file.resolve(), bundle.resolve()
    if not real.is_file():
        raise RunProblem(f"{file}: not a file")
    if not real.is_relative_to(folder) and real.parent != folder.parent.parent / "blobs":
        raise RunProblem(f"{file}: leads outside the bundle; copy the file into it")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def resolve_model(name: str) -> Path:
    """The folder of a bundle named on the command line.

    A name with a `/` is a folder, `hf://owner/name` is downloaded, any other name is one of
    `find_bundle`. The UsageProblem shows where it was looked for, or how to get it.
    """
    if name.startswith(HUB):
        local_path(f"{name}:{META}")  # what is no bundle may have gigabytes
        return local_path(name)
    if name not in (EMBEDDED, *KNOWN) and Path(name).is_file():
        remedy = f"`ramctl convert {name} --arch ... --out DIR` makes one of a checkpoint"
        raise UsageProblem(f"model {name}: a file, not a bundle; {remedy}")
    if "/" in name and not Path(name).is_dir():
        raise UsageProblem(f"model {name}: no such folder{hub_hint(name)}")
    if bundle := Path(name) if "/" in name else find_bundle(name):
        return bundle
    if known := KNOWN.get(name):
        way = f"`ramctl convert {name}` downloads it ({known.offer})"
        raise UsageProblem(f"model {name!r} is not on this machine; {way}")
    where = f"no bundle here under that name, none in {model_shelf()}"
    hint = did_you_mean(name.lower().replace("++", "-plus").replace("_", "-"), (EMBEDDED, *KNOWN))
    more = f"(`ramctl doctor` lists some to download){hint}"
    raise UsageProblem(f"model {name!r}: {where} {more}")


def find_bundle(name: str) -> Path | None:
    """The bundle of a bare name: the embedded one, a folder here, or one of `model_shelf`.

    A folder here, which anybody may have made, never stands for a known model.
    """
    if name == EMBEDDED:
        return embedded_bundle()
    # `Path()`: the current folder.
    folders = [folder for folder in bundle_folders() if name not in KNOWN or folder != Path()]
    return next((folder / name for folder in folders if (folder / name / META).is_file()), None)


@cache
def known_labels() -> Labels:
    """The labels of the embedded bundle, which know tags of other models by their names, too."""
    return Labels.read(embedded_bundle())


def label_matcher(words: Collection[str]) -> Callable[[str, str], bool]:
    """A function of a tag and its language (empty: English): whether a word names its label.

    The words are English, or in the language of the tag.
    """
    known = set(map(normalise, words))
    ids = cache(lambda language: {i for x in words for i in known_labels().by_name(x, language)})

    def matches(tag: str, language: str) -> bool:
        if not known or normalise(tag) in known:
            return bool(known)
        return not ids(language).isdisjoint(known_labels().by_name(tag, language))

    return matches


def read_labels(name: str) -> Labels:
    """The label system in a file, in a folder, or of a bundle with a known name."""
    path = Path(name)
    if not path.is_file() and (name in (EMBEDDED, *KNOWN) or not path.exists()):
        with suppress(UsageProblem):  # a missing file is reported as such
            path = resolve_model(name)
    return Labels.read(path)


def bundle_folders() -> list[Path]:
    """Where a bare name is looked for: here and, if there is a home, in `model_shelf`."""
    folders = [Path()]
    with suppress(RunProblem):
        folders.append(model_shelf())
    return folders


def model_shelf() -> Path:
    """The folder of bundles that are known by name: $RAMCTL_MODELS, else in the user's data."""
    folder = os.environ.get("RAMCTL_MODELS")
    return (
        Path(folder)
        if folder is not None
        else user_folder("XDG_DATA_HOME", ".local/share") / "models"
    )


def embedded_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(str(files("ramctl.checkpoints") / "bundles" / EMBEDDED))


class BundleWriter:
    """Collects a bundle's files in a hidden sibling of the target and renames that into place.

    As a context manager: write files below `path`, set `meta`, leave the block. An older bundle at
    the target is deleted only when the new one is in place; after an error it stays. The target is
    locked meanwhile: RunProblem when another run writes it; UsageProblem as of `require_bundle`.
    """

    def __init__(self, target: Path) -> None:
        require_bundle(target)
        # Of a link, what it leads to; else as named, for messages.
        is_as_named = target.name and not target.is_symlink()
        self.target = target if is_as_named else target.resolve()
        self.path = self._sibling("new")
        self.meta: JsonObject = {}
        self._lock = ExitStack()

    def _sibling(self, what: str) -> Path:
        return self.target.with_name(f".{self.target.name}.ramctl-{what}")

    def copy_files(self, source: Bundle, *, without: Collection[str] = ()) -> None:
        """Take over a bundle's files and its `meta`."""
        for name in source.file_sizes:
            if name not in without:
                copy = self.path / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                # No hard link, by which an edit of this file would change the other bundle's.
                shutil.copyfile(source.path / name, copy)
        self.meta = {key: value for key, value in source.meta.items() if key != "files"}

    def __enter__(self) -> "BundleWriter":
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(output_lock(self.target))
        remove_all(self.path)  # of a killed run
        self.path.mkdir()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        with self._lock:
            try:
                if kind is None:
                    with naming(self.target):
                        self._complete()
            finally:
                remove_all(self.path)

    def _complete(self) -> None:
        write_meta(self.path, self.meta)
        for file in self.path.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors makes private files
        sync_tree(self.path)
        aside = self._sibling("old")
        remove_all(aside)
        if self.target.exists():
            self.target.rename(aside)
        self.path.rename(self.target)
        sync_folder(self.target.parent)
        remove_all(aside)


def require_bundle(target: Path) -> None:
    """UsageProblem where what is at `target` is neither nothing, an empty folder nor a bundle."""
    if not target.exists():
        return
    is_empty = target.is_dir() and not any(target.iterdir())
    try:
        listed = {} if is_empty else orjson.loads((target / META).read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageProblem(f"{target} exists and is no bundle: name another path") from error
    files = (file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
    if other := next((name for name in files if name not in (META, *listed)), None):
        raise UsageProblem(f"{target / other}: is not part of the bundle; move it away")


def write_meta(path: Path, meta: JsonObject) -> None:
    """Write the folder's bundle.json: `meta`, and the size and hash of every file in it now."""
    listed = {
        str(file.relative_to(path)): {"sha256": file_sha256(file), "bytes": file.stat().st_size}
        for file in path.rglob("*")
        if file.is_file() and file.name != META
    }
    content = {"format": FORMAT} | meta | {"files": dict(sorted(listed.items()))}
    (path / META).write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
