"""A record's tags in the data engine: who named them, which are looked for, what they imply."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import known_labels
from ramctl.labels import Labels
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    HUMAN,
    MODELS,
    PARSED,
    JsonObject,
    kinds_of,
    listed,
    lists_by_tag,
    tags_by_caption,
)

TWICE = "parsed twice"  # besides `parsed`: two captions or more name the tag
_BITS = {PARSED: 1, HUMAN: 2, BY_CAPTION: 4, BY_TAG: 8, TWICE: 16}
Bits = NDArray[np.uint8]


def source_bits(sources: Collection[str]) -> int:
    """The known ones of these sources as bits."""
    return sum(bit for name, bit in _BITS.items() if name in sources)


def is_human(sources: Bits) -> NDArray[np.bool_]:
    """Whether a person gave the tags with these bits of sources."""
    return (sources & np.uint8(source_bits([HUMAN]))) > 0


def is_mentioned(sources: Bits) -> NDArray[np.bool_]:
    """Whether tags with these bits of sources come from a caption or a person, not from a model.

    Tags without a source count as a person's.
    """
    return (sources == 0) | ((sources & ~np.uint8(source_bits(MODELS))) > 0)


def is_of_caption(sources: Bits) -> NDArray[np.bool_]:
    """Whether one caption, and no person, names the tags with these bits of sources."""
    others = source_bits([PARSED, HUMAN, TWICE])
    return (sources & np.uint8(others)) == source_bits([PARSED])


def implied_ids(tags: Iterable[str], labels: Labels) -> set[int]:
    """The ids of what tags imply: a photo of a boy shows a child and a person."""
    found: set[int] = set()
    for tag in tags:
        for system in (labels, known_labels()):
            if parents := [parent for i in system.ids(tag) for parent in system[i].parents]:
                found.update(*map(labels.ids, parents))
                break
    return found


class RequestedTag(NamedTuple):
    """A tag to find a region for."""

    place: int  # in the record's tags
    labels: tuple[int, ...]  # several where the label system has the string more than once
    sources: int  # as `source_bits`


def requested_tags(
    fields: JsonObject, labels: Labels, kinds: Collection[str], counts: Counter[str]
) -> list[RequestedTag]:
    """The tags of a record that get a region; the others are counted by reason."""
    tags = listed(fields, "tags")
    kind_of, sources = kinds_of(fields), lists_by_tag(fields, "sources")
    n_mentions = Counter(chain.from_iterable(tags_by_caption(fields)))
    requested = []
    for place, tag in enumerate(tags):
        if tag in tags[:place]:
            continue
        counts["tags"] += 1
        ids = tuple(labels.ids(tag))
        if not ids:
            counts["unknown to the model"] += 1
        elif (kind_of.get(tag) or labels[ids[0]].kind) not in kinds:
            counts["of another kind"] += 1
        else:
            names = [*sources.get(tag, ()), *[TWICE][: n_mentions[tag] > 1]]
            requested.append(RequestedTag(place, ids, source_bits(names)))
    return requested
