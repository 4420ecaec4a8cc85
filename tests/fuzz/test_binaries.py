"""Damaged photos, archives, bundles, checkpoints and sidecars."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from safetensors.numpy import save

from ramctl.checkpoints.bundle import CALIBRATION, META, WEIGHTS, Bundle, embedded_bundle
from ramctl.checkpoints.weights import read_checkpoint
from ramctl.decide.calibration import Calibration
from ramctl.export.sidecar_merge import merge_tags
from ramctl.photos import decoding
from ramctl.photos.archives import TarIndex
from ramctl.photos.decoding import decode_photo, photo_size
from ramctl.readers.captions_beside_photos import read_tar
from ramctl.readers.source import Source
from tests.faults.test_bad_inputs import FORMS
from tests.fuzz.damage import survive
from tests.photos.test_decoding import encoded, picture
from tests.support import DATA

PHOTO = (DATA / "photos" / "steps.jpg").read_bytes()
MAX_PIXELS = 4_000_000


@pytest.mark.parametrize("form", FORMS)
def test_photos(form, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_PIXELS", MAX_PIXELS)
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a" * 40
    options = {"exif": exif} if form in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    seeds = [encoded(picture((24, 16)), form, **options), encoded(picture((65, 3)), form)]
    if form == "JPEG":
        seeds += [encoded(picture((40, 40)), form, progressive=True), PHOTO[:20_000]]

    def read(data: bytes) -> None:
        photo = decode_photo(data, target=8)
        assert photo.mode == "RGB" and photo.width * photo.height <= MAX_PIXELS
        (tmp_path / "photo").write_bytes(data)
        assert min(photo_size(str(tmp_path / "photo"))) > 0

    survive(read, seeds, form)


def shard(form: int) -> bytes:
    """A tar with all that a tar can hold: folders, links, long, doubled and outward names."""
    stream = io.BytesIO()
    long_names = [] if form == tarfile.USTAR_FORMAT else ["long" * 60 + ".jpg"]
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name in ("a.jpg", "a.txt", "../b.jpg", "/etc/c.jpg", "a.jpg", *long_names):
            info = tarfile.TarInfo(name)
            content = b"a dog" if name.endswith("txt") else b"photo"
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for kind, target in ((tarfile.SYMTYPE, "/etc/hosts"), (tarfile.LNKTYPE, "a.jpg")):
            info = tarfile.TarInfo(f"link{kind.decode()}.jpg")
            info.type, info.linkname = kind, target
            archive.addfile(info)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return stream.getvalue()


SHARDS = [shard(form) for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]


def test_archives(tmp_path):
    path, calls = tmp_path / "shard.tar", iter(range(10**9))

    def read(data: bytes) -> None:
        path.with_name(f"{next(calls)}.tar").write_bytes(data)
        own = sorted(tmp_path.glob("*.tar"))[0]
        try:
            index = TarIndex(own)
            for name in index.members():
                assert b"localhost" not in index.read(name)
            list(read_tar(Source(str(own), tmp_path, "parse")))
        finally:
            own.unlink()

    survive(read, SHARDS, "tar")
    assert not list(tmp_path.rglob("*.jpg")), "something was unpacked"


@pytest.fixture
def bundle(tmp_path):
    """The embedded bundle without its large files."""
    source, folder = embedded_bundle(), tmp_path / "outer" / "bundle"
    folder.mkdir(parents=True)
    meta = json.loads((source / META).read_bytes())
    meta["files"] = {
        name: facts for name, facts in meta["files"].items() if facts["bytes"] < 300_000
    }
    for name in meta["files"]:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(source / name, folder / name)
    (folder / META).write_text(json.dumps(meta))
    return folder


def test_a_bundle_s_table(bundle):
    seed = (bundle / META).read_bytes()
    small = json.loads(seed) | {"files": {}}

    def read(data: bytes) -> None:
        (bundle / META).write_bytes(data)
        opened = Bundle.open(bundle)
        assert opened.preset and opened.preprocess and opened.fingerprint and opened.dtype
        assert opened.file_sizes.keys() == opened.meta.get("files", {}).keys()
        assert isinstance(opened.batch_size, int | None)
        if opened.has("labels.jsonl"):
            assert len(opened.thresholds) == len(opened.labels)

    survive(read, [seed, json.dumps(small).encode()], META)


@pytest.mark.parametrize("name", ["../secret", "/etc/hosts", "text/../../secret", "a\0b"])
def test_a_name_in_a_bundle_never_leads_outside(name, bundle, monkeypatch):
    from ramctl.errors import RunProblem

    (bundle.parent / "secret").write_bytes(b"x")
    meta = json.loads((bundle / META).read_bytes())
    meta["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (bundle / META).write_text(json.dumps(meta))
    looked_at, stat = [], Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **o: looked_at.append(self) or stat(self, **o))
    with pytest.raises(RunProblem, match="leads outside"):
        Bundle.open(bundle)
    monkeypatch.undo()
    assert all(path.resolve().is_relative_to(bundle.resolve()) for path in looked_at)


def test_a_bundle_s_calibration(bundle):
    path = bundle / CALIBRATION
    table = json.loads(path.read_bytes())
    seed = json.dumps({k: v[:3] if isinstance(v, list) else v for k, v in table.items()}).encode()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        calibration = Calibration.read(path)
        calibration.thresholds(0.5)

    survive(read, [seed], CALIBRATION)


def test_a_bundle_s_weights(bundle):
    rows = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.zeros(4, np.float32)}

    def read(data: bytes) -> None:
        (bundle / WEIGHTS).write_bytes(data)
        opened = Bundle(bundle, {})
        opened.tensor_shapes()
        opened.tensors()

    survive(read, [save(rows)], WEIGHTS)


class Evil:
    """What a pickle must not do."""

    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = {"model": {"a.weight": torch.arange(6.0), "b.bias": torch.zeros(2)}}
    new, old, evil = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(tensors, new)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    torch.save(tensors | {"bad": Evil()}, evil)
    seeds = [new.getvalue(), old.getvalue(), evil.getvalue(), b"<html>no</html>"]
    seeds.append(pickle.dumps({"model": Evil()}))
    path = tmp_path / "a.pth"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_checkpoint(path)

    survive(read, seeds, "pth")
    assert not (tmp_path / "evil").exists()


DARKTABLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmp:Rating="3"><dc:subject><rdf:Bag><rdf:li>Anna</rdf:li><rdf:li>family</rdf:li></rdf:Bag>
   </dc:subject><lr:hierarchicalSubject><rdf:Bag><rdf:li>people|Anna</rdf:li></rdf:Bag>
   </lr:hierarchicalSubject></rdf:Description></rdf:RDF></x:xmpmeta>"""
DIGIKAM = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:digiKam="http://www.digikam.org/ns/1.0/"><digiKam:TagsList><rdf:Seq><rdf:li>People/Anna
 </rdf:li></rdf:Seq></digiKam:TagsList></rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>"""


def test_sidecars_stay_as_readable_as_they_were():
    from xml.dom import minidom

    def read(data: bytes) -> None:
        try:
            merged = merge_tags(data, ["dog", "hot dog & <co>"], "auto")
            without = merge_tags(data, (), "")
        except ValueError:
            return  # the sidecar stays as it is
        for written in (merged, without):
            if written is not None:
                minidom.parseString(written)

    survive(read, [DARKTABLE, DIGIKAM], "xmp")
