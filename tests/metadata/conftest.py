"""Sidecars as other programs leave them, and what is in them."""

import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from ramctl.metadata.sidecar_merge import FIELDS, MIRRORS
from ramctl.metadata.xmp_document import OURS, RDF, Property, XmpDocument
from tests.support import DATA, command

__all__ = ["command"]

DARKTABLE = (DATA / "darktable.xmp").read_bytes()
BY_NAME = {f"{f.property.prefix}_{f.property.name}": f for f in (*FIELDS, *MIRRORS)}
needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")


def program(*words: object) -> str:
    """What another program prints."""
    words = [*map(str, words)]
    return subprocess.run(words, capture_output=True, check=True, text=True).stdout


def rewritten(content: bytes | None = None, **changes) -> bytes:
    """The sidecar after another program gave these fields (`dc_subject`) other items."""
    document = XmpDocument(content)
    for name, items in changes.items():
        document.set_items(BY_NAME[name].property, items)
    return document.to_bytes()


def without(content: bytes, *words: str) -> bytes:
    """The sidecar after a photo manager took words out of all fields."""
    changes = {}
    for name, field in BY_NAME.items():
        items = XmpDocument(content).items(field.property)
        changes[name] = [item for item in items if not item.endswith(words)]
    return rewritten(content, **changes)


def tags_of(content: bytes) -> dict[str, list[str]]:
    """The items of each field that ramctl writes, as another parser finds them."""
    root, found = ElementTree.fromstring(content), {}
    for field in FIELDS:
        for element in root.iter(f"{{{field.property.namespace}}}{field.property.name}"):
            items = [(item.text or "").strip() for item in element.iter(f"{{{RDF}}}li")]
            found[str(field.property)] = items
    return found


def refused(content: bytes) -> list[str]:
    """The tags that a sidecar records as deleted."""
    return XmpDocument(content).items(Property(OURS, "ramctl", "refused"))
