"""Results of an earlier run, and the files of other programs."""

import csv
import io
import json
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from ramctl.tagging.run import TagOptions, loaded, run
from tests.support import gallery_photos

RESULTS = [
    {"image": "a.jpg", "tags": ["dog", "grass"], "scores": {"dog": 0.9, "grass": 0.5}, "mine": 1},
    {"image": "a.png", "tags": ["cat"], "scores": {"cat": 0.75}},
    {"image": "sub/b c.jpg", "tags": ["dog", "<sofa>"], "captions": ["a dog"]},
]


@pytest.fixture
def tag(ramctl, tmp_path, monkeypatch):
    """Runs `ramctl tag --from-tags` on RESULTS in a folder with their photos."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for record in RESULTS:
        Image.new("RGB", (40, 30), "red").save(record["image"])
    lines = [json.dumps(record) + "\n" for record in RESULTS]
    Path("tags.jsonl").write_text("".join(lines))

    def run(*words, code=0, source="tags.jsonl") -> str:
        done = ramctl("tag", "--from-tags", source, *words)
        assert done.returncode == code, done.messages
        return done.messages if code else done.stdout.decode()

    return run


def test_results_are_written_again_without_a_model(tag):
    records = [json.loads(line) for line in tag("-q").splitlines()]
    assert records == RESULTS
    tag("--xmp", "--gallery", "page.html", "-o", "out.csv", "-f", "csv")
    assert "auto|dog" in Path("a.jpg.xmp").read_text()
    assert "auto|&lt;sofa&gt;" in Path("sub/b c.jpg.xmp").read_text()
    assert Path("out.csv").read_text().splitlines()[1] == 'a.jpg,"dog, grass","0.9000, 0.5000"'
    assert len(gallery_photos(Path("page.html"))) == 3


def test_results_can_be_chosen_from(tag):
    def tags(*words):
        return [json.loads(line)["tags"] for line in tag("-q", *words).splitlines()]

    assert tags("--threshold", "0.7") == [["dog"], ["cat"], ["dog", "<sofa>"]]
    assert tags("--top", "1") == [["dog"], ["cat"], ["dog"]]
    Path("only.txt").write_text("dog\n")
    assert tags("--include", "only.txt") == [["dog"], [], ["dog"]]
    assert tags("--exclude", "only.txt") == [["grass"], ["cat"], ["<sofa>"]]
    Path("names.tsv").write_text("dog\tHund\ngrass\tHund\n")
    first = json.loads(tag("-q", "--rename", "names.tsv").splitlines()[0])
    assert (first["tags"], first["scores"]) == (["Hund"], {"Hund": 0.9})


def test_what_needs_the_model_or_is_no_result_is_said(tag):
    for option in (["--boxes"], ["--leaf"], ["--threshold", "tags.jsonl"]):
        assert "--from-tags" in tag(*option, code=2)
    Path("bad.jsonl").write_text('{"image": "a.jpg"}\n{"image": "a.jpg", "tags": "dog"}\n')
    told = tag(code=3, source="bad.jsonl")
    assert "bad.jsonl:1: no tags field" in told and "bad.jsonl:2: tags" in told
    Path("a.png").unlink()
    assert "a.png: no such file" in tag("--xmp", code=3)


def test_coco(tag):
    found = json.loads(tag("-q", "-f", "coco"))
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "a.png", "sub/b c.jpg"]
    assert found["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
    names = {category["id"]: category["name"] for category in found["categories"]}
    rows = [(a["image_id"], names[a["category_id"]], a.get("score")) for a in found["annotations"]]
    assert rows == [
        (1, "dog", 0.9), (1, "grass", 0.5), (2, "cat", 0.75), (3, "dog", None), (3, "<sofa>", None),
    ]  # fmt: skip
    box = {"image": "a.jpg", "tags": ["dog"], "boxes": {"dog": [[0.25, 0, 0.75, 1], 0.9]}}
    Path("tags.jsonl").write_text(json.dumps(box) + "\n")
    (annotation,) = json.loads(tag("-q", "-f", "coco"))["annotations"]
    assert (annotation["bbox"], annotation["area"]) == ([10, 0, 20, 30], 600)
    Path("tags.jsonl").write_text("")
    empty = json.loads(tag("-q", "-f", "coco"))
    assert empty == {"images": [], "annotations": [], "categories": []}


def test_open_images(tag):
    assert list(csv.reader(io.StringIO(tag("-q", "-f", "open-images")))) == [
        ["ImageID", "Source", "LabelName", "Confidence"],
        ["a.jpg", "machine", "dog", "0.9000"],
        ["a.jpg", "machine", "grass", "0.5000"],
        ["a.png", "machine", "cat", "0.7500"],
        ["sub/b c.jpg", "verification", "dog", "1"],
        ["sub/b c.jpg", "verification", "<sofa>", "1"],
    ]


def test_fiftyone_finds_photos_wherever_it_runs(tag, tmp_path):
    found = json.loads(tag("-q", "-f", "fiftyone"))
    # its importer takes absolute keys as paths; a.jpg and a.png are two
    assert list(found["labels"]) == [str(tmp_path / record["image"]) for record in RESULTS]
    assert found["labels"][str(tmp_path / "a.png")] == [{"label": "cat", "confidence": 0.75}]
    assert found["classes"] == ["dog", "grass", "cat", "<sofa>"]
    moved = json.loads(tag("-q", "-f", "fiftyone", "--photos-at", "/mnt/photos"))
    assert list(moved["labels"])[2] == "/mnt/photos/sub/b c.jpg"


def test_label_studio_gets_urls_and_its_configuration(tag):
    words = ["--photos-at", "/data/local-files/?d=", "--label-config", "config.xml"]
    tasks = json.loads(tag("-q", "-f", "label-studio", *words))
    assert tasks[2]["data"] == {"image": "/data/local-files/?d=sub/b%20c.jpg"}
    config = ElementTree.parse("config.xml").getroot()
    choices = config.find("Choices")
    (result,) = tasks[0]["predictions"][0]["result"]
    assert (result["from_name"], result["to_name"]) == (choices.get("name"), choices.get("toName"))
    assert config.find("Image").get("value") == "$image"
    assert [c.get("value") for c in choices] == ["dog", "grass", "cat", "<sofa>"]
    assert "--photos-at" in tag("-f", "csv", "--photos-at", "x", code=2)


def test_webdataset(tag):
    tag("-q", "-f", "webdataset", "-o", "samples.tar")
    with tarfile.open("samples.tar") as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}
    keys = ["000000_a", "000001_a", "000002_b_c"]
    ends = [["jpg", "txt", "json"], ["png", "txt", "json"], ["jpg", "txt", "json"]]
    assert list(members) == [f"{k}.{e}" for k, of in zip(keys, ends, strict=True) for e in of]
    assert members["000000_a.jpg"] == Path("a.jpg").read_bytes()
    assert members["000000_a.txt"] == b"dog, grass"
    assert members["000002_b_c.txt"] == b"a dog"
    assert json.loads(members["000000_a.json"]) == RESULTS[0]
    assert "cannot be continued" in tag("-f", "webdataset", "-o", "samples.tar", "--resume", code=2)


def test_texts_and_counts_for_trainers(tag):
    words = ["--txt-caption", "--txt-first", "<sofa>", "--txt-extension", "caption"]
    told = tag("--txt", *words, "--tag-counts", "counts.tsv", code=3)
    assert "no caption for --txt-caption" in told  # of two; the third has one
    assert Path("sub/b c.caption").read_text() == "a dog, <sofa>, dog\n"
    assert not Path("a.caption").exists()
    tag("-q", "--tag-counts", "counts.tsv")
    assert Path("counts.tsv").read_text() == "dog\t2\n<sofa>\t1\ncat\t1\ngrass\t1\n"
    last = json.loads(tag("-q", "-f", "kohya", "--txt-first", "<sofa>").splitlines()[2])
    assert last == {
        "image_path": "sub/b c.jpg", "caption": "<sofa>, dog", "image_size": [40, 30],
    }  # fmt: skip
    assert "--tag-counts" in tag("--tag-counts", "c", "-o", "out", "--resume", code=2)
    assert "--txt-extension" in tag("--txt", "--txt-extension", "jpg", code=2)


def test_workers_load_no_model_for_results():
    assert loaded(TagOptions(model="nowhere", from_tags=True)) is run
    assert loaded(TagOptions(model="nowhere", xmp_remove=True)) is run
