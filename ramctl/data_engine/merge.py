"""Records with what the baseline adds: tags with their sources and scores, captions."""

from collections.abc import Container, Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from ramctl.data_engine.captions import Caption
from ramctl.labels import LabelSystem
from ramctl.records.record import (
    BY_CAPTION,
    BY_TAG,
    HUMAN,
    JsonObject,
    object_in,
    removed_before,
    string_list,
)

SCORE_DIGITS = 4


def merge_generated(
    fields: JsonObject,
    labels: LabelSystem,
    probabilities: NDArray[np.float32],
    predicted: Sequence[int],
    captions: Sequence[Caption] | None,
    confirmed: NDArray[np.bool_] | None = None,
) -> JsonObject:
    """The record with new tags after its own, and `kinds`, `sources`, `scores` of all of them.

    `probabilities` (L) are the model's, `predicted` the ids above their thresholds. A tag that
    was `removed` from this record stays out. Without `captions` that field is left alone; of
    the captions' tags only the `confirmed` (L) are added (None: all).
    """
    sources = _with_new_tags(fields, labels, predicted, captions or (), confirmed)
    given = string_list(fields, "tags")
    fields["tags"] = tags = [*given, *(tag for tag in sources if tag not in set(given))]
    kinds = object_in(fields, "kinds")
    fields["kinds"] = {tag: kinds.get(tag) or _kind(labels, tag) for tag in tags}
    fields["sources"] = {tag: sources[tag] for tag in tags}
    fields["scores"] = _scores(labels, tags, probabilities)
    if captions is not None:
        fields["generated_captions"] = [caption.text for caption in captions]
        fields["generated_caption_tags"] = [list(caption.tags) for caption in captions]
    return fields


def _with_new_tags(
    fields: JsonObject,
    labels: LabelSystem,
    predicted: Sequence[int],
    captions: Sequence[Caption],
    confirmed: NDArray[np.bool_] | None,
) -> dict[str, list[str]]:
    """The sources of the record's tags and of those that are added, in order."""
    tags = string_list(fields, "tags")
    sources = _sources(fields, tags)
    known = {index: tag for tag in reversed(tags) for index in labels.ids(tag)}
    barred = {index for tag in removed_before(fields) for index in labels.ids(tag)} - known.keys()
    named = _named(labels, captions, known, confirmed)
    for index, source in [*((i, BY_CAPTION) for i in named), *((i, BY_TAG) for i in predicted)]:
        if index not in barred:
            own = sources.setdefault(known.setdefault(index, labels[index].tag), [])
            own += [source] if source not in own else []
    return sources


def _named(
    labels: LabelSystem,
    captions: Sequence[Caption],
    known: Container[int],
    confirmed: NDArray[np.bool_] | None,
) -> Iterator[int]:
    """The labels that captions name, as far as they are `known` or `confirmed`."""
    for tag in chain.from_iterable(caption.tags for caption in captions):
        ids = labels.ids(tag)
        if ids and (confirmed is None or ids[0] in known or confirmed[list(ids)].any()):
            yield ids[0]


def _sources(fields: JsonObject, tags: Sequence[str]) -> dict[str, list[str]]:
    given = object_in(fields, "sources")
    named = {tag: given.get(tag) for tag in tags}
    # A tag that came in without a source was given by a person.
    return {tag: list(own) if isinstance(own, list) else [HUMAN] for tag, own in named.items()}


def _kind(labels: LabelSystem, tag: str) -> str:
    ids = labels.ids(tag)
    return str(labels[ids[0]].kind) if ids else "object"


def _scores(
    labels: LabelSystem, tags: Sequence[str], probabilities: NDArray[np.float32]
) -> dict[str, float]:
    """A string with several ids scores their maximum; tags outside the system have no score."""
    by_tag = {tag: [float(probabilities[index]) for index in labels.ids(tag)] for tag in tags}
    return {tag: round(max(own), SCORE_DIGITS) for tag, own in by_tag.items() if own}
