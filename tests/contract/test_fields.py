"""Fields of a wrong form, by command: each such record is a reject or passes, and others come out.

A field's form is looked at once, where records come in (`ramctl/records/fields.py`).
"""

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.support import DATA, gallery_photos

WRONG = [5, -1.5, "x", "", True, [], [5], [[1]], [["a"]], [{}], [None], {"a": "x"}, {"a": 5}]
WRONG += [{"a": []}, {"a": None}, {"horse": [[0, 0, 1], 0.5]}, {"horse": [[1, 1, 0, 0], 0.5]}]
WRONG += [{"horse": [5, 0.5]}, {"horse": {}}, {}, None]
FIELDS = (
    "image", "captions", "caption", "generated_captions", "caption_tags", "generated_caption_tags",
    "tags", "kinds", "sources", "scores", "salience", "dense", "embedding", "boxes",
    "removed", "negatives", "uncertain", "confirmed", "refused", "label_names", "labels", "main",
    "group", "parents", "keywords", "image_size", "tag_language",
)  # fmt: skip
PHOTO = str(DATA / "photos" / "horses.jpg")
OWN = {
    "image": PHOTO, "captions": ["a horse in a field", "a brown horse"], "tags": ["horse", "field"],
    "caption_tags": [["horse", "field"], ["horse"]], "kinds": {"horse": "object", "field": "scene"},
    "scores": {"horse": 0.9, "field": 0.5}, "sources": {"horse": ["human"], "field": ["parsed"]},
    "boxes": {"horse": [[0.1, 0.1, 0.9, 0.9], 0.9]}, "confirmed": ["horse"], "refused": ["sky"],
}  # fmt: skip
ONE_STEP = ("--steps", "1", "--out", "m", "--val", "truth.jsonl")
EXPORTS = ("jsonl", "table", "text", "csv", "coco", "exiftool-csv", "parquet")
COMMANDS: dict[str, list[str]] = {
    "caption": ["caption", "--model", "m"],
    "parse": ["parse"],
    "parse --keep-tags": ["parse", "--keep-tags", "--explain"],
    "parse --group": ["parse", "--group"],
    "parse --labels": ["parse", "--labels", "MODEL", "-f", "ram"],
    **{f"export {form}": ["export", "-f", form, "-o", f"out.{form}"] for form in EXPORTS},
    "export --gallery": ["export", "--gallery", "page.html"],
    "export --xmp": ["export", "-f", "jsonl", "--xmp", "--txt", "--dry-run"],
    "clean": ["clean", "--model", "MODEL"],
    "generate": ["generate", "--model", "MODEL", "--captions", "1"],
    "tag": ["tag", "--model", "MODEL", "-f", "csv"],
    "import": ["import"],
    "eval": ["eval", "--truth", "truth.jsonl", "--classes", "MODEL"],
    "eval --truth": ["eval", "truth.jsonl", "--classes", "MODEL", "--truth"],
    # Without --val, the one photo of all records may be held out, by its name.
    "train": ["train", "--preset", "tiny", "--text", "MODEL/text", *ONE_STEP],
    "finetune": ["finetune", "--model", "MODEL", *ONE_STEP],
    "finetune --thresholds": ["finetune", "--thresholds", "--out", "m"],
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A small photo, so that each of some hundred records takes little time."""
    path = tmp_path_factory.mktemp("photo") / "small.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def records(photo: Path) -> list[dict]:
    """A good record, one for each field with each wrong value, another good one."""
    own = OWN | {"image": str(photo)}
    odd = [own | {name: value} for name in FIELDS for value in WRONG]
    return [{"id": number, **row} for number, row in enumerate([own, *odd, own])]


def test_the_gallery_holds_what_its_script_can_show(small, ramctl, tmp_path):
    text = "".join(json.dumps(row) + "\n" for row in records(small))
    (tmp_path / "in.jsonl").write_text(text)
    done = ramctl("export", "--gallery", "page.html", "in.jsonl")
    assert done.returncode == 3
    boxes = []
    for photo in gallery_photos(tmp_path / "page.html"):
        assert all(isinstance(text, str) for text in photo["captions"])
        assert all(score is None or type(score) in (int, float) for score in photo["tags"].values())
        boxes += [[*box, score] for box, score in photo["boxes"].values()]
    assert boxes and all(len(box) == 5 and {*map(type, box)} <= {int, float} for box in boxes)


# Those that look at each photo.
SLOW = {name: pytest.mark.slow for name in ("clean", "generate", "train", "finetune")}


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=SLOW.get(name, ())) for name in COMMANDS]
)
def test_no_form_of_a_field_stops_a_command(
    command, small, tiny_bundle, captioner, ramctl, tmp_path
):
    rows = records(small)
    words = [word.replace("MODEL", str(tiny_bundle)) for word in COMMANDS[command]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "truth.jsonl").write_text(json.dumps(rows[0]) + "\n")
    done = ramctl(*words, "in.jsonl", "--rejects", "rejects.jsonl")
    assert "internal error" not in done.messages and "Traceback" not in done.messages
    assert done.returncode == 3, done.messages
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").open()]
    by_id = {reject["record"]["id"]: reject for reject in rejects}
    assert all(by_id[n]["record"] == rows[n] for n in by_id)  # as it was
    if not command.startswith("eval"):  # to which it is the same photo
        assert not {0, len(rows) - 1} & by_id.keys()
    told = {(reject["code"], " " in reject["message"]) for reject in rejects}
    assert told <= {("bad_field", True), ("missing_field", True), ("missing_image", True)}
    if done.stdout.startswith(b'{"id"') and "--group" not in words:
        out = [json.loads(line)["id"] for line in done.stdout.splitlines()]
        assert sorted([*out, *by_id]) == list(range(len(rows)))
