"""Load models of the transformers library from local folders: complete, offline, and quiet."""

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from ramctl.errors import RunProblem
from ramctl.records.record import JsonObject

_CONTENT = {".safetensors", ".bin", ".pth", ".pt", ".json", ".txt", ".model"}


def read_config(folder: Path, name: str = "config.json") -> JsonObject:
    """Read the folder's JSON file; RunProblem when it is missing or no object."""
    path = folder / name
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunProblem(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(config, dict):
        raise RunProblem(f"{path}: not a JSON object")
    return config


def load_pretrained(
    model_class: Any, folder: Path, device: Any, *, kinds: Collection[str], **options: Any
) -> Any:
    """Load the folder's model for inference.

    RunProblem when its `model_type` is none of `kinds`, or when a weight is missing, which the
    library would fill with random numbers.
    """
    kind = read_config(folder).get("model_type")
    if kind not in kinds:
        raise RunProblem(f"{folder}: a model of type {kind!r}, expected {' or '.join(kinds)}")
    with quiet_transformers():
        try:
            model, report = model_class.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, **options
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise RunProblem(f"{folder}: {_first_line(error)}") from error
    # A segmenter's `criterion` is its loss.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("criterion."))
    if missing:
        raise RunProblem(f"{folder}: {len(missing)} weights are missing, among them {missing[0]}")
    # Weights stored in half precision would clash with the photos' float32.
    return model.eval().float().to(device)


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer; RunProblem when it has none."""
    return _load("AutoTokenizer", folder, "tokenizer")


def load_image_processor(folder: Path, **options: Any) -> Any:
    """Load the folder's image preprocessing; RunProblem when it has none."""
    return _load("AutoImageProcessor", folder, "image processor", **options)


def _load(auto_class: str, folder: Path, what: str, **options: Any) -> Any:
    import transformers  # seconds

    with quiet_transformers():
        try:
            auto: Any = getattr(transformers, auto_class)
            return auto.from_pretrained(folder, local_files_only=True, **options)
        except ImportError as error:
            reason = _first_line(error).partition(". ")[0]
            raise RunProblem(f"{folder}: {what}: {reason}") from error
        except (OSError, ValueError, KeyError) as error:
            raise RunProblem(f"{folder}: no {what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep the library's warnings and progress bars off stderr."""
    from transformers.utils import logging

    library: Any = logging
    level, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(level)
        if bars:
            library.enable_progress_bar()


def fingerprint(paths: Sequence[Path], *facts: object) -> str:
    """Hash facts and the content of files; of a folder, its weights, vocabularies and settings."""
    digest = hashlib.sha256(json.dumps(facts, default=str).encode())
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and (file == path or file.suffix in _CONTENT):
                with file.open("rb") as stream:
                    content = hashlib.file_digest(stream, "sha256").hexdigest()
                digest.update(f"{file.name}\0{content}\n".encode())
    return digest.hexdigest()
