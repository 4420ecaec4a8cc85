"""What shells complete: names of files, and descriptions of options with all their words."""

from collections.abc import Callable
from functools import partial
from typing import Any

import click
from click.shell_completion import CompletionItem, FishComplete, add_completion_class

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]
# By words in the names that a help gives to values.
_KINDS = {"FILE": "file", "PREDICTIONS": "file", "PHOTOS": "file", "CHECKPOINT": "file"}
_KINDS |= {"DIR": "dir", "BUNDLE": "dir", "PLACE": "dir"}


def names_offered(metavar: str) -> Offer | None:
    """What lets the shell complete a value that its help calls so; None for one that is no name."""
    kind = next((kind for word, kind in _KINDS.items() if word in metavar), None)
    return None if kind is None else partial(_offer, kind)


def _offer(
    kind: str, ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[Any]]:
    return [CompletionItem(incomplete, type=kind)]


@add_completion_class
class Fish(FishComplete):
    """click's, whose script cuts a description at its first comma."""

    source_template = FishComplete.source_template.replace(
        'string split ","', 'string split --max 1 ","'
    )
