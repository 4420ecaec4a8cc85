"""The parser's own word lists, from `data/lexicon.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources


@cache
def word_lists() -> dict[str, dict[str, list[str]]]:
    """All lists by section and name; `_` in an entry is a space."""
    text = resources.files("ramctl.parsing").joinpath("data/lexicon.toml").read_text("utf-8")
    return {
        section: {
            name: [entry.replace("_", " ") for entry in entries.split()]
            for name, entries in lists.items()
        }
        for section, lists in tomllib.loads(text).items()
    }


@cache
def word_set(name: str) -> frozenset[str]:
    """One of the word sets that a single rule needs."""
    return frozenset(word_lists()["rules"][name])


def pairs(entries: list[str]) -> dict[str, str]:
    """The mapping that a list of "form=lemma" entries says."""
    return dict(entry.split("=", 1) for entry in entries)
