"""The bundle: a folder with a model and all that tagging with it needs, but no code."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from ramctl.checkpoints.hub import HUB, KNOWN, hub_hint, local_path
from ramctl.errors import RunProblem, UsageProblem, did_you_mean
from ramctl.records.files import replacing_folder, user_folder
from ramctl.records.labels import DEFAULT_THRESHOLD, LABELS, Labels, normalise
from ramctl.records.record import JsonObject

if TYPE_CHECKING:
    import numpy as np

    from ramctl.model.preprocess import PreprocessConfig
    from ramctl.model.preset import Preset

FORMAT = 2
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
    threshold, precision, tags a photo), `salience` (`slope`, `main`), `class_evidence` (three
    weights), `open_set` (`calibration` of words that are no labels), `dtype` (of photo.onnx, fp32
    if absent), `provenance`, `files` (name -> sha256, bytes).
    """

    path: Path
    meta: JsonObject

    @classmethod
    def open(cls, path: Path) -> "Bundle":
        """The bundle in a folder; RunProblem for another version, and for a file of wrong size."""
        if not (path / META).exists():
            raise RunProblem(f"{path}: not a bundle ({META} is missing)")
        with problems_of(path):
            _require_inside(path / META, path)
            _require_inside(path / LABELS, path)
            meta = orjson.loads((path / META).read_bytes())
            if meta["format"] != FORMAT:
                version = f"format {meta['format']!r}, this ramctl reads {FORMAT}"
                raise RunProblem(f"{path / META}: {version}: convert or train it again")
            for name, facts in meta["files"].items():
                file = path / name
                if not file.exists():
                    raise RunProblem(f"{file}: missing from the bundle")
                _require_inside(file, path)
                if (size := file.stat().st_size) != facts["bytes"]:
                    raise RunProblem(f"{file}: {size} bytes instead of {facts['bytes']}")
        return cls(path, meta)

    @cached_property
    def preset(self) -> "Preset":
        """The preset that the model was built and trained with; RunProblem if it is damaged."""
        from ramctl.model.preset import preset_from_meta

        with problems_of(self.path):
            return preset_from_meta(self.meta)

    @cached_property
    def preprocess(self) -> "PreprocessConfig":
        """How photos are prepared; unlike `preset` it does not depend on any other table."""
        from ramctl.model.preprocess import PreprocessConfig

        with problems_of(self.path):
            return msgspec.convert(self.meta.get("preprocess", {}), PreprocessConfig)

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
        listed = sorted(self.meta["files"].items())
        hashes = [[name, facts["sha256"]] for name, facts in listed if name != CARD]
        names = ["architecture", "preprocess", "thresholds", "salience", "open_set"]
        parts = [hashes, *(self.meta.get(name) for name in (*names, "class_evidence"))]
        return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def identity(self) -> str:
        """The name and the fingerprint's first digits, as records name the model."""
        return f"{self.path.name} {self.fingerprint[:12]}"

    def has(self, name: str) -> bool:
        """Whether the bundle lists a file."""
        return name in self.meta["files"]

    def tensors(self, names: Iterable[str] | None = None) -> dict[str, "np.ndarray"]:
        """The named tensors, or all, as stored; RunProblem names one that is not there."""
        from safetensors import SafetensorError, safe_open

        path = self.path / WEIGHTS
        try:
            with safe_open(path, framework="numpy") as weights:
                chosen = list(weights.keys()) if names is None else list(names)
                return {name: weights.get_tensor(name) for name in chosen}
        except (SafetensorError, OSError) as error:
            raise RunProblem(f"{path}: cannot read the weights: {error}") from error

    def reference(self, width: int) -> "np.ndarray[Any, Any]":
        """The features (R, `width`) of REFERENCE; RunProblem where they do not fit."""
        import numpy as np

        with problems_of(self.path):
            return np.load(self.path / REFERENCE).reshape(-1, width)


@contextmanager
def problems_of(bundle: Path) -> Iterator[None]:
    """Report whatever a damaged bundle makes go wrong in the block as a RunProblem with its path.

    Sizes in bundle.json may be any, so timm and torch may raise anything but for interrupts.
    """
    try:
        yield
    except RunProblem:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunProblem(f"{bundle / META}: damaged: {reason}") from error


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

    `hf://owner/name` is downloaded, any other name is one of `find_bundle`. The UsageProblem shows
    where it was looked for, or how to get it.
    """
    if name.startswith(HUB):
        local_path(f"{name}:{META}")  # what is no bundle may have gigabytes
        return local_path(name)
    if bundle := find_bundle(name):
        return bundle
    if Path(name).is_file():
        remedy = f"`ramctl convert {name} --arch ... --out DIR` makes one of a checkpoint"
        raise UsageProblem(f"model {name}: a file, not a bundle; {remedy}")
    if known := KNOWN.get(name):
        way = f"`ramctl convert {name}` downloads it ({known.offer})"
        raise UsageProblem(f"model {name!r} is not on this machine; {way}")
    hint = did_you_mean(name.lower().replace("++", "-plus").replace("_", "-"), (EMBEDDED, *KNOWN))
    more = f"(`ramctl doctor` lists some to download){hint}{hub_hint(name)}"
    raise UsageProblem(f"model {name!r}: no bundle in that folder, none in {model_shelf()} {more}")


def find_bundle(name: str) -> Path | None:
    """The bundle of a name: the embedded one, that of a folder here, or one of `model_shelf`."""
    if name == EMBEDDED:
        return embedded_bundle()
    folders = (folder / name for folder in bundle_folders())
    return next((folder for folder in folders if (folder / META).is_file()), None)


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
    if name == EMBEDDED or not path.exists():
        with suppress(UsageProblem):  # a missing file is reported as such
            path = resolve_model(name)
    return Labels.read(path)


def bundle_folders() -> list[Path]:
    """Where a name is looked for: here and, if there is a home, in `model_shelf`."""
    folders = [Path()]
    with suppress(RunProblem):
        folders.append(model_shelf())
    return folders


def model_shelf() -> Path:
    """The folder of bundles that are known by name: $RAMCTL_MODELS, else in the user's data."""
    folder = os.environ.get("RAMCTL_MODELS")
    return Path(folder) if folder else user_folder("XDG_DATA_HOME", ".local/share") / "models"


def embedded_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(__file__).parent / "bundles" / EMBEDDED


class BundleWriter:
    """Collects a bundle's files in a hidden sibling of the target and renames that into place.

    As a context manager: write files below `path`, set `meta`, leave the block. An older bundle at
    the target is deleted only when the new one is complete; after an error it stays. The target is
    locked meanwhile: RunProblem when another run writes it; UsageProblem as of `require_bundle`.
    """

    def __init__(self, target: Path) -> None:
        require_bundle(target)
        self.target = target
        self.meta: JsonObject = {}
        self._folder = ExitStack()

    def copy_files(self, source: Bundle, *, without: Collection[str] = ()) -> None:
        """Take over a bundle's files and its `meta`."""
        for name in source.meta["files"]:
            if name not in without:
                copy = self.path / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source.path / name, copy)
        self.meta = {key: value for key, value in source.meta.items() if key != "files"}

    def __enter__(self) -> "BundleWriter":
        self.path = self._folder.enter_context(replacing_folder(self.target))
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            write_meta(self.path, self.meta)
            for file in self.path.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors makes private files
        self._folder.__exit__(kind, *error)


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
