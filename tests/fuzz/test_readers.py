"""Damaged files of every kind that is read: each is taken, or refused as the product does."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path
from xml.dom import minidom

import pytest
import torch

from ramctl.checkpoints.bundle import META, Bundle, embedded_bundle
from ramctl.checkpoints.weights import read_checkpoint
from ramctl.errors import RunProblem
from ramctl.inference.thresholds import read_thresholds
from ramctl.metadata.sidecar_merge import merge_tags
from ramctl.photos.decoding import decode_photo
from ramctl.records.inputs import read_inputs
from ramctl.records.jsonl import dumps
from ramctl.records.labels import Label, Labels
from tests.fuzz.damage import damaged, survive
from tests.photos.test_decoding import encoded, picture
from tests.readers.test_readers import FILES, read_any

LABELS = Labels([Label("dog"), Label("cat", synonyms=("kitten",)), Label("run", "action")])
JSONL = [
    b'{"image":"a.jpg","captions":["A dog .","a cat"],"tags":["dog"],"own":[1e300,-0.0]}\n',
    b'{"image":"b.tar#c.jpg","caption":"two dogs run","scores":{"dog":0.9,"cat":0.1}}\n',
    b'{"image":"d.jpg","tags":["dog"],"boxes":{"dog":[[0,0,1,1],0.5]},"negatives":["cat"]}\n',
]
THRESHOLDS = b'{"tag":"dog","threshold":0.5}\n{"tag":"kitten","threshold":1}\n'
DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/"><dc:subject><rdf:Bag><rdf:li>Anna</rdf:li>
   </rdf:Bag></dc:subject><lr:hierarchicalSubject><rdf:Bag><rdf:li>people|Anna</rdf:li></rdf:Bag>
   </lr:hierarchicalSubject></rdf:Description></rdf:RDF></x:xmpmeta>"""


def shard() -> bytes:
    """A tar with folders, links, doubled and outward names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.jpg", "a.txt", "../b.jpg", "/etc/c.jpg", "a.jpg", "long" * 60 + ".jpg"):
            info = tarfile.TarInfo(name)
            content = b"a dog" if name.endswith("txt") else b"photo"
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hosts"
        archive.addfile(link)
    return stream.getvalue()


class Evil:
    """What a pickle must not do."""

    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def saved(content: object, **form: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **form)
    return stream.getvalue()


TENSORS = {"model": {"a.weight": torch.arange(6.0), "b.bias": torch.zeros(2)}}
CHECKPOINTS = [
    saved(TENSORS), saved(TENSORS, _use_new_zipfile_serialization=False),
    saved(TENSORS | {"bad": Evil()}), b"<html>no</html>", pickle.dumps({"model": Evil()}),
]  # fmt: skip


def read_sidecar(path: Path) -> None:
    data = path.read_bytes()
    try:
        written = merge_tags(data, ["dog", "hot dog & <co>"], "auto")
    except ValueError:
        return  # the sidecar stays as it is
    minidom.parseString(written)


# What each kind of file is made of, and what reads it.
KINDS = {
    "records.jsonl": (JSONL, lambda path: list(read_inputs([str(path)], None, "parse"))),
    "labels.jsonl": ([LABELS.to_bytes()], lambda path: Labels.read(path).sha256),
    "labels.txt": ([b"dog\ncat\nrun\n"], lambda path: Labels.read(path).sha256),
    "thresholds": (
        [THRESHOLDS, b"0.1\n0.2\n0.3\n"], lambda path: read_thresholds(path, LABELS, 0.5),
    ),
    **{
        name: ([content.encode()], read_any)
        for name, (_, content) in FILES.items()
    },
    **{
        f"photo.{form}": ([encoded(picture((24, 16)), form)], lambda path: decode_photo(
            path.read_bytes()
        ))
        for form in ("JPEG", "PNG", "WEBP", "TIFF")
    },
    "shard.tar": ([shard()], read_any),
    "checkpoint.pth": (CHECKPOINTS, read_checkpoint),
    "sidecar.xmp": ([DARKTABLE], read_sidecar),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_taken_or_refused_and_runs_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seeds, read = KINDS[name]

    def from_bytes(data: bytes) -> None:
        Path(name).write_bytes(data)
        read(Path(name))

    survive(from_bytes, seeds, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing was unpacked


@pytest.fixture
def bundle(tmp_path):
    """The embedded bundle without its large files."""
    source, folder = embedded_bundle(), tmp_path / "outer" / "bundle"
    folder.mkdir(parents=True)
    meta = json.loads((source / META).read_bytes())
    small = {name: facts for name, facts in meta["files"].items() if facts["bytes"] < 300_000}
    meta["files"] = small
    for name in small:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, folder / name)
    (folder / META).write_text(json.dumps(meta))
    return folder


def test_a_bundle_s_table(bundle):
    seed = (bundle / META).read_bytes()

    def read(data: bytes) -> None:
        (bundle / META).write_bytes(data)
        opened = Bundle.open(bundle)
        assert opened.preset and opened.preprocess and opened.fingerprint and opened.dtype

    survive(read, [seed, json.dumps(json.loads(seed) | {"files": {}}).encode()], META)


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "text/../../secret"])
def test_a_name_in_a_bundle_never_leads_outside(name, bundle):
    (bundle.parent / "secret").write_bytes(b"x")
    meta = json.loads((bundle / META).read_bytes())
    meta["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (bundle / META).write_text(json.dumps(meta))
    with pytest.raises(RunProblem, match="leads outside"):
        Bundle.open(bundle)


def test_a_record_in_and_out_of_the_command_is_neither_lost_nor_doubled(tmp_path, ramctl):
    good = [dumps({"image": f"{i}.jpg", "captions": ["a dog"]}).strip() for i in range(5)]
    lines = [line.replace(b"\n", b" ") for line in damaged(good, "through", 200)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    done = ramctl("parse", "in.jsonl", "-o", "out", "--rejects", "bad")
    counts = [(tmp_path / name).read_bytes().count(b"\n") for name in ("out", "bad")]
    assert done.returncode == 3
    assert sum(counts) == sum(bool(line.strip()) for line in lines)
    assert "\x1b" not in done.messages
