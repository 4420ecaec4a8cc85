"""`fit` on captioned or corrected photos: labels fit them, and other photos stay as they were."""

import numpy as np
import pytest
from PIL import Image

from ramctl.checkpoints.bundle import FIT, Bundle, embedded_bundle
from ramctl.inference.tagger import Tagger
from tests.command import Ramctl
from tests.support import DATA, write_records

WORDS = "lies alone on a plain table in a quiet room, seen from the side, in soft light"
KEPT = ("model.safetensors", "photo.onnx", "labels.onnx")


def picture(kind: str, number: int) -> Image.Image:
    """Checks or stripes, of any colour."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:96, :96] // random.integers(8, 16)
    is_dark = (rows + columns) % 2 if kind == "widget" else rows % 2
    colors = random.integers(0, 256, (2, 3))
    return Image.fromarray(colors[is_dark].astype(np.uint8))


def records(folder, number=24):
    """Photos of a new thing and of a sock in turn, with their captions' tags."""
    made = []
    for index in range(number):
        kind = ("widget", "sock")[index % 2]
        picture(kind, index).save(folder / f"{index}.png")
        made.append({
            "image": f"{index}.png", "captions": [f"A {kind} {WORDS}"], "tags": [kind, "table"],
            "caption_tags": [[kind, "table"]], "kinds": {kind: "object", "table": "object"},
        })  # fmt: skip
    return made


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a run on 24 photos, and what it printed."""
    folder = tmp_path_factory.mktemp("fit")
    rows = [*records(folder), {"image": "none.png", "tags": ["sock"]}]
    write_records(folder / "parsed.jsonl", rows)
    return folder, Ramctl(folder)("fit", "parsed.jsonl", "--out", "mine")


def test_a_word_of_the_captions_becomes_a_label_and_comes_first(fitted):
    folder, done = fitted
    assert done.returncode == 3 and b"none.png" in done.stderr  # a record without its photo
    assert b"fits labels of mini to these photos; its network stays" in done.stderr
    assert b"1 new labels: widget\n" in done.stderr
    bundle, mini = Bundle.open(folder / "mine"), Bundle.open(embedded_bundle())
    assert bundle.labels.tags == [*mini.labels.tags, "widget"]
    tagger = Tagger.from_pretrained(folder / "mine")
    for kind in ("widget", "sock"):  # photos that the fit did not see
        tags = [tagger.tag(picture(kind, number)).tags for number in range(100, 110)]
        assert sum(found[0] == kind for found in tags) >= 9
    assert bundle.meta["provenance"]["fitted"]["new_labels"] == ["widget"]
    card = (folder / "mine" / "README.md").read_text("utf-8")
    assert card.startswith("# mine\n\nFitted by `ramctl fit") and "# mini" in card


def test_the_model_s_files_and_the_tags_of_other_photos_stay(fitted):
    folder, _ = fitted
    for name in KEPT:
        assert (folder / "mine" / name).read_bytes() == (embedded_bundle() / name).read_bytes()
    photos = sorted((DATA / "photos").glob("*.jpg"))
    for runtime in ("onnx", "torch"):
        before, after = (
            [result.record for result in Tagger.from_pretrained(model, runtime=runtime).tag(photos)]
            for model in ("mini", folder / "mine")
        )
        assert before == after


def test_the_records_of_a_photo_count_once_and_the_same_ones_give_the_same_bytes(fitted):
    folder, _ = fitted
    rows = records(folder)
    again = [row | {"image": f"./{row['image']}"} for row in rows]
    write_records(folder / "often.jsonl", [*rows, *again])
    assert Ramctl(folder)("fit", "often.jsonl", "--out", "often").returncode == 0
    once, often = ((folder / name / FIT).read_bytes() for name in ("mine", "often"))
    assert once == often


def test_refused_tags_become_less_likely(tmp_path):
    rows = records(tmp_path)
    for row in rows:
        decided = {"refused": ["table"], "confirmed": ["sock"]}
        row.update(decided, tags=["sock"], captions=[], caption_tags=[])
    write_records(tmp_path / "mine.jsonl", rows)
    assert Ramctl(tmp_path)("fit", "mine.jsonl", "--out", "mine").returncode == 0
    table = Bundle.open(embedded_bundle()).labels.ids("table")[0]
    before, after = (
        Tagger.from_pretrained(model, dense=True).tag(picture("sock", 101)).dense[table]
        for model in ("mini", tmp_path / "mine")
    )
    assert after < before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["fit", "few.jsonl"], "10 photos with tags that are labels are too few: 20 are needed"),
        (["fit", "parsed.jsonl", "--model", "mine"], "mine: is fitted"),
        (["finetune", "parsed.jsonl", "--model", "mine"], "mine: is fitted"),
    ],
)
def test_what_cannot_be_fitted_or_trained_on_is_one_line(fitted, words, complaint):
    folder, _ = fitted
    write_records(folder / "few.jsonl", records(folder, 10))
    done = Ramctl(folder)(*words, "--out", "again")
    assert done.returncode == 1 and complaint in done.messages
    assert not (folder / "again").exists() and not (folder / "again.work").exists()
