"""Image tagging from captions: Recognize Anything (RAM) as Unix filters over JSONL."""

from importlib import import_module

TYPE_CHECKING = False  # typing and errors would take a while, in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from ramctl.checkpoints.bundle import Bundle
    from ramctl.errors import RamctlError, RecordProblem, RunProblem, UsageProblem
    from ramctl.labels import Label, LabelSystem
    from ramctl.parsing.parsed_caption import ParsedCaption
    from ramctl.parsing.parser import CaptionParser
    from ramctl.parts import __version__
    from ramctl.photos.decoding import Photo
    from ramctl.searching.photo_search import PhotoSearch
    from ramctl.tagging.tagger import Box, Tagger, TagResult

_LAZY = {
    "Box": "ramctl.tagging.tagger",
    "Bundle": "ramctl.checkpoints.bundle",
    "CaptionParser": "ramctl.parsing.parser",
    "Label": "ramctl.labels",
    "LabelSystem": "ramctl.labels",
    "ParsedCaption": "ramctl.parsing.parsed_caption",
    "Photo": "ramctl.photos.decoding",
    "PhotoSearch": "ramctl.searching.photo_search",
    "RamctlError": "ramctl.errors",
    "RecordProblem": "ramctl.errors",
    "RunProblem": "ramctl.errors",
    "TagResult": "ramctl.tagging.tagger",
    "Tagger": "ramctl.tagging.tagger",
    "UsageProblem": "ramctl.errors",
    "__version__": "ramctl.parts",
}

__all__ = [
    "Box", "Bundle", "CaptionParser", "Label", "LabelSystem", "ParsedCaption", "Photo",
    "PhotoSearch", "RamctlError", "RecordProblem", "RunProblem", "TagResult", "Tagger",
    "UsageProblem", "__version__",
]  # fmt: skip

if not TYPE_CHECKING:  # a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """The public classes, imported on first use so that `import ramctl` stays light."""
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
