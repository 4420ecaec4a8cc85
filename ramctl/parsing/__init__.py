"""Captions to tags, and tags to a label system."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ramctl.parsing.parser import CaptionParser, ParsedCaption

__all__ = ["CaptionParser", "ParsedCaption"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ramctl.parsing import parser

    return getattr(parser, name)
