"""Image tagging from captions: Recognize Anything (RAM) as Unix filters over JSONL."""

from importlib import import_module

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing and errors would take a while, in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from ramctl.apps.photo_search import PhotoSearch
    from ramctl.checkpoints.bundle import Bundle
    from ramctl.errors import RamctlError, RecordProblem, RunProblem, UsageProblem
    from ramctl.inference.tagger import Box, Tagger, TagResult
    from ramctl.metadata.sidecars import write_sidecar
    from ramctl.parsing.parsed_caption import ParsedCaption
    from ramctl.parsing.parser import CaptionParser
    from ramctl.photos.decoding import Photo
    from ramctl.records.labels import Label, Labels

_LAZY = {
    "ramctl.checkpoints.bundle": ["Bundle"],
    "ramctl.errors": ["RamctlError", "RecordProblem", "RunProblem", "UsageProblem"],
    "ramctl.metadata.sidecars": ["write_sidecar"],
    "ramctl.records.labels": ["Label", "Labels"],
    "ramctl.parsing.parsed_caption": ["ParsedCaption"],
    "ramctl.parsing.parser": ["CaptionParser"],
    "ramctl.photos.decoding": ["Photo"],
    "ramctl.apps.photo_search": ["PhotoSearch"],
    "ramctl.inference.tagger": ["Box", "TagResult", "Tagger"],
}

__all__ = [
    "Box", "Bundle", "CaptionParser", "Label", "Labels", "ParsedCaption", "Photo",
    "PhotoSearch", "RamctlError", "RecordProblem", "RunProblem", "TagResult", "Tagger",
    "UsageProblem", "__version__", "write_sidecar",
]  # fmt: skip

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """The public classes, imported on first use so that `import ramctl` stays light."""
        for module in (module for module, names in _LAZY.items() if name in names):
            return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
