"""The way out to the RAM authors' training code: their JSON list, tags as ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ramctl.labels import LabelSystem
from ramctl.records.jsonl import dumps
from ramctl.records.record import captions_of, image_name


def ram_encoder(labels: LabelSystem) -> Callable[[dict[str, Any]], bytes]:
    """An encoder of output records as items of one JSON list (open it with `[`, close with `]`).

    `union_label_id` holds all tags of the photo, `parse_label_id` those of each caption; tags
    outside the label system have no id and are left out.
    """
    first = True

    def ids(tags: list[str]) -> list[int]:
        return sorted({number for tag in tags for number in labels.ids(tag)})

    def encode(fields: dict[str, Any]) -> bytes:
        nonlocal first
        row = {
            "image_path": image_name(fields),
            "caption": captions_of(fields),
            "union_label_id": ids(fields["tags"]),
            "parse_label_id": [ids(tags) for tags in fields["caption_tags"]],
        }
        line = dumps(row).rstrip(b"\n")
        line = (b"" if first else b",\n") + line
        first = False
        return line

    return encode
