"""Captions to tags, and captions to a label system."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ramctl.parsing.captions import ParsedCaption
    from ramctl.parsing.parser import CaptionParser

__all__ = ["CaptionParser", "ParsedCaption"]


def __getattr__(name: str) -> Any:
    """A public name, imported on first use: spaCy takes a second."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ramctl.parsing import parser

    return getattr(parser, name)
