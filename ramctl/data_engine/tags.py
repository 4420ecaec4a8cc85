"""A record's tags in the data engine: who named them, which are looked for, what they imply."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from pathlib import PurePosixPath
from typing import NamedTuple

from ramctl.checkpoints.bundle import known_labels
from ramctl.records.labels import Labels
from ramctl.records.record import (
    HUMAN,
    MODELS,
    PARSED,
    JsonObject,
    image_name,
    kinds_of,
    listed,
    lists_by_tag,
    tags_by_caption,
)

FOLDS = 5  # of photos, for predictions by the other folds


def fold_of(fields: JsonObject) -> int:
    """The fold of a record's photo, whichever record it is in."""
    name = PurePosixPath(image_name(fields).rsplit("#", 1)[-1]).name
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return digest[0] % FOLDS


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
    is_human: bool  # a person gave it
    is_mentioned: bool  # a caption or a person named it; tags without a source count as theirs
    is_of_caption: bool  # one caption, and no person, names it
    fold: int  # of the photo


def requested_tags(
    fields: JsonObject, labels: Labels, kinds: Collection[str]
) -> list[RequestedTag]:
    """The tags of a record that get a region: those of these kinds that are labels, each once."""
    tags, kind_of = listed(fields, "tags"), kinds_of(fields)
    all_sources = lists_by_tag(fields, "sources")
    n_captions = Counter(chain.from_iterable(tags_by_caption(fields)))
    requested, fold = [], fold_of(fields)
    for place, tag in enumerate(tags):
        ids = labels.ids(tag)
        if tag in tags[:place] or not ids or (kind_of.get(tag) or labels[ids[0]].kind) not in kinds:
            continue
        sources = set(all_sources.get(tag, ()))
        is_of_caption = PARSED in sources and HUMAN not in sources and n_captions[tag] < 2
        is_mentioned = not sources or not sources <= MODELS
        origins = HUMAN in sources, is_mentioned, is_of_caption
        requested.append(RequestedTag(place, ids, *origins, fold))
    return requested
