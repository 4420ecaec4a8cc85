"""What `tag` writes beside the photos: XMP and text sidecars, and their removal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ramctl.errors import RecordProblem
from ramctl.photos.decoding import photo_size
from ramctl.records.record import Record, image_name
from ramctl.records.stream import Outcome
from ramctl.tagging.sidecars import (
    XMP_PREFIX,
    Existing,
    NameStyle,
    Sidecar,
    photo_path,
    text_sidecar,
    write_sidecar,
    xmp_sidecars,
    xmp_without_tags,
)


@dataclass(frozen=True, slots=True)
class SidecarOptions:
    """Which sidecars are written, and how."""

    xmp: bool = False
    prefix: str = XMP_PREFIX  # of machine tags in XMP; empty: none
    style: NameStyle = "full"  # of a new XMP file's name: IMG.JPG.xmp, or `stem`: IMG.xmp
    text: bool = False
    existing_text: Existing = "append"
    dry_run: bool = False


class SidecarWriter:
    """Writes a tagged photo's sidecars, before its record is written."""

    def __init__(self, options: SidecarOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say

    def __call__(self, record: Record, outcome: Outcome) -> Outcome:
        """The outcome, or the RecordProblem of a sidecar that cannot be written."""
        if isinstance(outcome, RecordProblem):
            return outcome
        try:
            self._write(self._sidecars(record, outcome))
        except RecordProblem as problem:
            return problem
        return outcome

    def _sidecars(self, record: Record, fields: dict[str, Any]) -> list[Sidecar]:
        options = self._options
        photo = photo_path(image_name(fields), record.base)
        sidecars = []
        if options.xmp:
            sidecars += xmp_sidecars(
                photo, fields["tags"], prefix=options.prefix, style=options.style
            )
        if options.text:
            sidecars.append(text_sidecar(photo, fields["tags"], existing=options.existing_text))
        return sidecars

    def remove(self, record: Record) -> dict[str, Any]:
        """Take the machine tags out of a photo's XMP sidecars; the record stays as it is."""
        photo = photo_path(image_name(record.fields), record.base)
        self._write(xmp_without_tags(photo, prefix=self._options.prefix))
        return record.fields

    def _write(self, sidecars: list[Sidecar]) -> None:
        for sidecar in sidecars:
            if not self._options.dry_run:
                write_sidecar(sidecar)
            elif sidecar.content is not None:
                self._say(f"would {'write' if sidecar.content else 'delete'} {sidecar.path}")


def add_photo_size(record: Record, outcome: Outcome) -> Outcome:
    """The outcome with the photo's own `image_size`, [width, height], which trainers ask for."""
    if not isinstance(outcome, RecordProblem):
        try:
            outcome["image_size"] = list(photo_size(image_name(outcome), record.base))
        except RecordProblem as problem:
            return problem
    return outcome
