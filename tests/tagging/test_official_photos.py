"""A converted bundle: what the model sees is what torchvision gives the authors' models."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.inference.tagger import Tagger, TaggerOptions, open_runner
from ramctl.model.preset import load_preset, write_table
from ramctl.records.record import Record

pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")
SIZE = 384
ORIENTATION = 0x0112

# ram/transform.py of github.com/xinyu1205/recognize-anything, commit 7cb804a.
authors = transforms.Compose(
    [
        lambda photo: photo.convert("RGB"),
        transforms.Resize((SIZE, SIZE)),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


@pytest.fixture(scope="module")
def tagger():
    """A tagger with the preprocessing of a converted bundle."""
    mini = Bundle.open(resolve_model("mini"))
    official = write_table(load_preset("ram-swin-l").preprocess)
    official |= {"size": SIZE, "loader": "official"}
    bundle = Bundle(mini.path, mini.meta | {"preprocess": official})

    return Tagger(*open_runner(bundle, TaggerOptions()), TaggerOptions())


def seen(tagger: Tagger, path: Path) -> np.ndarray:
    photo = tagger.runner.read(Record({"image": path.name}, "list", 1, path.parent))
    return tagger.runner.preprocess.full_batch([photo.pixels], 1)[0]


def picture(mode: str, size=(850, 650)) -> Image.Image:
    random = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 1 << 16, size[::-1], np.uint16))
    if mode == "F":
        return Image.fromarray(random.random(size[::-1], np.float32) * 300)
    small = Image.fromarray(random.integers(0, 256, (30, 40, 4), np.uint8), "RGBA")
    photo = small.resize(size, Image.Resampling.BICUBIC)
    return photo.convert("RGB").convert(mode) if mode in ("P", "CMYK", "1") else photo.convert(mode)


TURNED = Image.Exif()
TURNED[ORIENTATION] = 6
FILES = {
    "grey-alpha.png": ("LA", {}),
    "palette-clear.png": ("P", {"transparency": 3}),
    "colour-clear.png": ("RGB", {"transparency": (0, 0, 0)}),
    "alpha.png": ("RGBA", {}),
    "deep.png": ("I;16", {}),
    "float.tiff": ("F", {}),
    "cmyk.jpg": ("CMYK", {}),
    "large.jpg": ("RGB", {"quality": 80}),
    "turned.jpg": ("RGB", {"exif": TURNED}),
    "animation.gif": ("P", {}),
}


@pytest.mark.parametrize("name", list(FILES))
def test_photos_of_every_mode_are_seen_as_by_the_authors(tagger, tmp_path, name):
    mode, options = FILES[name]
    picture(mode).save(tmp_path / name, **options)
    expected = authors(Image.open(tmp_path / name)).numpy()
    assert np.array_equal(seen(tagger, tmp_path / name), expected)


@pytest.mark.shared
def test_the_fixture_photos_are_seen_as_by_the_authors(tagger, shared):
    odd = shared / "data" / "photos" / "odd"
    rows = map(json.loads, (odd / "index.jsonl").read_text("utf-8").splitlines())
    paths = [odd / row["file"] for row in rows if row["expect"] == "ok"]
    paths += (shared / "data" / "photos" / "fullsize").glob("*.jpg")
    paths += (shared / "parity").glob("preproc_*.png")
    assert len(paths) > 35
    differ = [
        path.name
        for path in paths
        if not np.array_equal(seen(tagger, path), authors(Image.open(path)).numpy())
    ]
    assert differ == []
