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
    """Read the folder's JSON file; RunProblem when it is missing or no JSON."""
    path = folder / name
    try:
        config: JsonObject = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunProblem(f"{path}: {getattr(error, 'strerror', None) or error}") from error
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
    with _quietly(folder):
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **options
        )
    # A segmenter's `criterion` is its loss.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("criterion."))
    if missing:
        raise RunProblem(f"{folder}: {len(missing)} weights are missing, among them {missing[0]}")
    # Weights stored in half precision would clash with the photos' float32.
    return model.eval().float().to(device)


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer; RunProblem when it has none."""
    return _load("AutoTokenizer", folder)


def load_image_processor(folder: Path, **options: Any) -> Any:
    """Load the folder's image preprocessing; RunProblem when it has none."""
    return _load("AutoImageProcessor", folder, **options)


def _load(auto_class: str, folder: Path, **options: Any) -> Any:
    import transformers  # seconds

    with _quietly(folder):
        auto: Any = getattr(transformers, auto_class)
        return auto.from_pretrained(folder, local_files_only=True, **options)


@contextlib.contextmanager
def _quietly(folder: Path) -> Iterator[None]:
    """Keep transformers' warnings and progress bars off stderr; RunProblem for what it raises."""
    from transformers.utils import logging

    library: Any = logging
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise RunProblem(f"{folder}: {str(error).strip().partition(chr(10))[0]}") from error


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
