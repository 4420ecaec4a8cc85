"""Image tagging from captions: Recognize Anything (RAM) as Unix filters over JSONL."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Tagger": "ramctl.tagging.tagger",
    "CaptionParser": "ramctl.parsing",
    "LabelSystem": "ramctl.labels",
    "Bundle": "ramctl.checkpoints.bundle",
}

__all__ = ["Bundle", "CaptionParser", "LabelSystem", "Tagger", "__version__"]


def __getattr__(name: str) -> Any:
    """The public classes, imported on first use so that `import ramctl` stays light."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
