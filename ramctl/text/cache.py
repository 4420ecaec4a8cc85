"""Label vectors kept in the user's cache folder, so that each is computed only once.

The 63 prompts of a label take CLIP's text encoder about a second on a CPU core, and a list of
thousands of labels is used again and again, often with a few words more.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ramctl.errors import RunProblem
from ramctl.records.files import user_cache, write_atomic

Rows = NDArray[np.float32]


def cached_rows(
    source: str, texts: Sequence[str], compute: Callable[[Sequence[str]], Rows]
) -> Rows:
    """One row (E) per text (N, E); only texts that are not in the cache yet are computed.

    `source` is a hash of everything that a row depends on besides its text. A cache that cannot be
    read or written costs time, nothing else.
    """
    path = user_cache("text") / f"{source}.safetensors"
    known = _read(path)
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known |= dict(zip(new, compute(new), strict=True))
        _write(path, known)
    return np.stack([known[text] for text in texts]).astype(np.float32)


def _read(path: Path) -> dict[str, Rows]:
    try:
        with safe_open(path, framework="numpy") as file:
            texts = orjson.loads(file.metadata()["texts"])
            rows = file.get_tensor("rows")
        return dict(zip(texts, rows, strict=True))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return {}


def _write(path: Path, rows: dict[str, Rows]) -> None:
    texts = orjson.dumps(list(rows)).decode()
    content = save({"rows": np.stack(list(rows.values()))}, metadata={"texts": texts})
    with contextlib.suppress(OSError, RunProblem):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
