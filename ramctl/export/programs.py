"""Tagged records in the files of annotation and training programs."""

import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from ramctl.photos.archives import split_member
from ramctl.records.files import write_atomic
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record, decode_name, image_name, shown_name
from ramctl.records.stream import Encoder

_BLOCK = 512  # bytes of a tar
_CHUNK = 1 << 20

#: What is added to a record before it is encoded, and not part of it otherwise.
Adder = Callable[[Record, JsonObject], None]


def separated(entry: Encoder) -> Encoder:
    """Entries with a comma between them."""
    separators = iter([b""])

    def encode(record: JsonObject) -> bytes:
        return next(separators, b",\n") + entry(record)

    return encode


def place_of(record: JsonObject, photos_at: str | None) -> str:
    """The photo's name below a folder or URL where another program finds it, else as it is."""
    name = shown_name(decode_name(record["image"]))
    if photos_at is None:
        return name
    if "://" in photos_at or "?" in photos_at:
        name = quote(name)
    return f"{photos_at}{'' if photos_at.endswith(('/', '=')) else '/'}{name}"


class FiftyOne:
    """FiftyOne's multilabel classification dataset: `{"labels": {path: targets}, "classes"}`.

    Its keys are absolute paths, which FiftyOne takes as they are: shorter ones are looked for in
    `data/` and without their extension.
    Source: FiftyOneImageClassificationDatasetImporter in fiftyone 1.22.
    """

    header = b'{"labels":{\n'

    def __init__(self, photos_at: str | None) -> None:
        self._classes: dict[str, None] = {}
        self._photos_at = photos_at
        self.encode = separated(self._entry)

    def _entry(self, record: JsonObject) -> bytes:
        key = record["path"] if self._photos_at is None else place_of(record, self._photos_at)
        scores = record.get("scores", {})
        targets = []
        for tag in record["tags"]:
            self._classes[tag] = None
            score = {"confidence": scores[tag]} if tag in scores else {}
            targets.append({"label": tag} | score)
        return dumps({key: targets})[1:-2]  # without the object's own braces and newline

    def footer(self) -> Iterator[bytes]:
        """The classes."""
        yield b"\n}," + dumps({"classes": [*self._classes]})[1:]


class Coco:
    """COCO's instances format; an annotation has a `bbox` only where the record has `boxes`.

    Annotations wait in a temporary file for the end of the images.
    """

    header = b'{"images":[\n'

    def __init__(self, photos_at: str | None) -> None:
        self._categories: dict[str, int] = {}  # numbers from 1 on, as they come
        self._photos_at = photos_at
        self._n_images = self._n_annotations = 0
        self._annotations = TemporaryFile()  # noqa: SIM115 (ends with the object)
        self._separate = separated(dumps)
        self.encode = separated(self._image)

    def _image(self, record: JsonObject) -> bytes:
        self._n_images += 1
        width, height = record["image_size"]
        for tag in record["tags"]:
            self._annotations.write(self._separate(self._annotation(record, tag)))
        file_name = place_of(record, self._photos_at)
        image = {"id": self._n_images, "file_name": file_name, "width": width, "height": height}
        return dumps(image).rstrip(b"\n")

    def _annotation(self, record: JsonObject, tag: str) -> JsonObject:
        self._n_annotations += 1
        annotation: JsonObject = {
            "id": self._n_annotations,
            "image_id": self._n_images,
            "category_id": self._categories.setdefault(tag, len(self._categories) + 1),
        }
        if tag in record.get("scores", {}):
            annotation["score"] = record["scores"][tag]
        if tag in record.get("boxes", {}):
            width, height = record["image_size"]
            x0, y0, x1, y1 = record["boxes"][tag][0]
            box = [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height]
            annotation["bbox"] = [round(side, 1) for side in box]
            annotation |= {"area": round(box[2] * box[3], 1), "iscrowd": 0}
        return annotation

    def footer(self) -> Iterator[bytes]:
        """The annotations and the categories."""
        yield b'\n],"annotations":[\n'
        self._annotations.seek(0)
        while chunk := self._annotations.read(_CHUNK):
            yield chunk
        rows = [
            {"id": number, "name": name, "supercategory": ""}
            for name, number in self._categories.items()
        ]
        yield b"]," + dumps({"categories": rows})[1:]


def label_studio_task(photos_at: str | None) -> Encoder:
    """Tasks with one prediction, scored by the mean: sorted by it, doubtful photos come first."""

    def task(record: JsonObject) -> bytes:
        place, scores = place_of(record, photos_at), [*record.get("scores", {}).values()]
        result = {
            "id": blake2b(place.encode(), digest_size=5).hexdigest(),
            "from_name": "tags",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": record["tags"]},
        }
        prediction = {
            "model_version": "ramctl",
            "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
            "result": [result],
        }
        return dumps({"data": {"image": place}, "predictions": [prediction]}).rstrip(b"\n")

    return separated(task)


@contextmanager
def open_label_config(path: Path) -> Iterator[Adder]:
    """Write Label Studio's labelling configuration for the tags at the end of the block.

    It offers what the records name; called with each record.
    """
    names: dict[str, None] = {}
    yield lambda _, fields: names.update(dict.fromkeys(fields["tags"]))
    choices = "".join(f"    <Choice value={quoteattr(name)}/>\n" for name in names)
    config = (
        '<View>\n  <Image name="image" value="$image"/>\n'
        '  <Filter name="filter" toName="tags" minlength="0"/>\n'
        '  <Choices name="tags" toName="image" choice="multiple" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )
    write_atomic(path, config.encode())


class WebDataset:
    """A tar of samples: the photo as it is, its text in `.txt`, its record in `.json`.

    Samples are numbered, so that `a.jpg` and `a.png` are two.
    """

    header = b""

    def __init__(self, text: Callable[[JsonObject], str]) -> None:
        self._text = text
        self._n = 0

    def encode(self, record: JsonObject) -> bytes:
        """The members of one sample."""
        name = decode_name(record["image"])
        inside = split_member(name)
        path = PurePath(shown_name(inside[1] if inside else name))
        stem = "".join(c if c.isalnum() and c.isascii() else "_" for c in path.stem)
        key = f"{self._n:06d}_{stem}"
        self._n += 1
        fields = {field: value for field, value in record.items() if field != "content"}
        members = {
            path.suffix.lower().lstrip(".") or "jpg": record["content"],
            "txt": self._text(record).encode(),
            "json": dumps(fields).rstrip(b"\n"),
        }
        return b"".join(_tar_member(f"{key}.{end}", data) for end, data in members.items())

    def footer(self) -> Iterable[bytes]:
        """The two empty blocks that end a tar."""
        return (bytes(2 * _BLOCK),)


def _tar_member(name: str, data: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % _BLOCK)


def add_photo_size(record: Record, fields: JsonObject) -> None:
    """Add the photo's own `image_size`, [width, height]."""
    from ramctl.photos.decoding import photo_size

    fields["image_size"] = list(photo_size(image_name(fields), record.base))


def add_photo_path(record: Record, fields: JsonObject) -> None:
    """Add the photo's absolute `path`."""
    fields["path"] = shown_name(str((record.base / image_name(fields)).absolute()))


def add_photo_content(record: Record, fields: JsonObject) -> None:
    """Add the bytes of the photo's file, `content`."""
    from ramctl.photos.decoding import read_photo

    fields["content"] = read_photo(image_name(fields), record.base)
