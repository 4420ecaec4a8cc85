"""`ramctl export` from the outside: formats of other programs, sidecars, pages, tables."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ramctl.metadata.sidecar_merge import HIERARCHICAL
from ramctl.metadata.xmp_document import XmpDocument
from tests.conftest import REPOSITORY
from tests.metadata.conftest import needs_exiftool, program, rewritten
from tests.support import gallery_photos, write_records

RESULTS = [
    {"image": "a.jpg", "tags": ["dog", "grass"], "scores": {"dog": 0.9, "grass": 0.5}, "mine": 1},
    {"image": "a.png", "tags": ["cat"], "scores": {"cat": 0.75}},
    {"image": "sub/b c.jpg", "tags": ["dog", "<sofa>"], "captions": ["a dog"]},
]
SIDECAR = Path("a.jpg.xmp")


@pytest.fixture
def export(command):
    """Runs `ramctl export` on RESULTS in a folder with their photos, or on other records."""
    Path("sub").mkdir()
    for record in RESULTS:
        Image.new("RGB", (40, 30), "red").save(record["image"])

    def run(*words, code=0, records=RESULTS) -> str:
        write_records(Path("tags.jsonl"), records)
        done = command("export", "tags.jsonl", *words, code=code)
        return done.messages if code else done.stdout.decode()

    return run


def test_records_go_through_and_get_sidecars_and_a_page(export):
    assert [json.loads(line) for line in export("-f", "jsonl").splitlines()] == RESULTS
    export("--xmp", "--gallery", "page.html", "-o", "out.csv", "-f", "csv")
    assert "auto|dog" in SIDECAR.read_text()
    assert "auto|&lt;sofa&gt;" in Path("sub/b c.jpg.xmp").read_text()
    assert Path("out.csv").read_text().splitlines()[1] == 'a.jpg,"dog, grass","0.9000, 0.5000",'
    assert len(gallery_photos(Path("page.html"))) == 3


@pytest.mark.parametrize(
    ("words", "tags"),
    [
        (["--threshold", "0.7"], [["dog"], ["cat"], ["dog", "<sofa>"]]),  # some have no scores
        (["--threshold", "limits"], [["grass"], ["cat"], ["dog", "<sofa>"]]),
        (["--top", "1"], [["dog"], ["cat"], ["dog"]]),
        (["--include", "only.txt"], [["dog"], [], ["dog"]]),
        (["--exclude", "list"], [["grass"], ["cat"], ["<sofa>"]]),
        (["--exclude", "dog, cat"], [["grass"], [], ["<sofa>"]]),
    ],
)
def test_tags_can_be_chosen_from(export, words, tags):
    Path("limits").write_text('{"tag":"dog","threshold":0.99}\n{"tag":"cow","threshold":0}\n')
    Path("only.txt").write_text("# mine\ndog\n")
    Path("list").write_text("dog\n")
    lines = export("-f", "jsonl", *words).splitlines()
    assert [json.loads(line)["tags"] for line in lines] == tags


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to write"),
        (["--xmp", "-o", "out"], "-o FILE needs -f"),
        (["--xmp-remove", "--xmp"], "--xmp-remove"),
        (["-f", "csv", "--photos-at", "x"], "--photos-at"),
        (["-f", "csv", "--exclude", "gone.txt"], "gone.txt: no such file"),
    ],
)
def test_what_does_not_go_together_is_said_before_any_work(export, words, said):
    assert said in export(*words, code=2)
    assert {*map(str, Path().iterdir())} == {"a.jpg", "a.png", "sub", "tags.jsonl"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"image": "a.jpg"}, "no tags field"), ({"image": "a.jpg", "tags": "dog"}, "tags is not"),
        ({"image": "a.jpg", "tags": [], "scores": "high"}, "scores is not an object"),
        ({"tags": ["dog"]}, "no image field"),
        ({"image": "gone.png", "tags": ["dog"]}, "gone.png: no such file"),
    ],
)  # fmt: skip
def test_what_is_no_tagged_record_of_a_photo_is_rejected(export, record, said):
    told = export("--xmp", code=3, records=[record, RESULTS[0]])
    assert "tags.jsonl:1: " in told and said in told
    assert SIDECAR.exists()


def test_machine_tags_are_taken_out_of_the_sidecars_of_records_and_of_photos(export, command):
    for words in ([], ["-R", "."]):
        export("--xmp")
        command("export", "--xmp-remove", "--dry-run", *(words or ["tags.jsonl"]))
        assert len(list(Path().rglob("*.xmp"))) == 3
        assert command("export", "--xmp-remove", *(words or ["tags.jsonl"])).stdout == b""
        assert not list(Path().rglob("*.xmp"))


def test_a_dry_run_shows_additions_and_removals_and_writes_nothing(export, command):
    def plan(*words, records=RESULTS):
        write_records(Path("tags.jsonl"), records)
        return command("export", "tags.jsonl", "--dry-run", *words, code=3)

    export("--xmp")
    Path("a.png.xmp").write_text("no sidecar")
    records = [RESULTS[0] | {"tags": ["poodle", "grass"]}, *RESULTS[1:]]
    before = sorted(Path().rglob("*"))
    words = ["--gallery", "page.html", "-f", "csv", "-o", "out.csv"]
    done = plan("--xmp", *words, records=records)
    assert done.stdout == b"would write a.jpg.xmp: + poodle, - dog\n"
    assert "a.png.xmp" in done.messages
    assert "1 rejected, 1 sidecars would change, " in done.messages.splitlines()[-1]
    assert b"would delete a.jpg.xmp: - dog, " in plan("--xmp-remove").stdout
    # a.txt would be of two photos
    assert b"would write sub/b c.txt: + dog, + <sofa>\n" in plan("--txt").stdout
    assert sorted(Path().rglob("*")) == before


@needs_exiftool
def test_the_readmes_exiftool_line_adds_and_may_run_twice(export):
    readme = (REPOSITORY / "ramctl" / "metadata" / "README.md").read_text("utf-8")
    text = readme.split("```sh\nexiftool")[1].split("```")[0].replace("\\\n", " ")
    Path("photos").mkdir()
    photo = Path("a.jpg").rename("photos/red.jpg")
    own = ["-IPTC:Keywords=Anna", "-XMP-dc:Subject=Paris, France", "-XMP-dc:Subject=red"]
    program("exiftool", "-q", "-overwrite_original", *own, photo)
    record = {"image": "photos/red.jpg", "tags": ["red", "colour"]}
    export("-f", "exiftool-csv", "-o", "tags.csv", records=[record])
    for _ in range(2):
        program("exiftool", *shlex.split(text))
        (facts,) = json.loads(program("exiftool", "-j", "-G1", photo))
        assert facts["XMP-dc:Subject"] == ["Paris, France", "red", "colour"]
        paths = ["Paris, France", "red", "Anna", "auto|red", "auto|colour"]
        assert facts["XMP-lr:HierarchicalSubject"] == paths
        assert facts["IPTC:Keywords"] == "Anna"


def test_coco(export):
    found = json.loads(export("-f", "coco"))
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "a.png", "sub/b c.jpg"]
    assert found["images"][0] == {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}
    names = {category["id"]: category["name"] for category in found["categories"]}
    rows = [(a["image_id"], names[a["category_id"]], a.get("score")) for a in found["annotations"]]
    assert rows == [
        (1, "dog", 0.9), (1, "grass", 0.5), (2, "cat", 0.75), (3, "dog", None), (3, "<sofa>", None),
    ]  # fmt: skip
    box = {"image": "a.jpg", "tags": ["dog"], "boxes": {"dog": [[0.25, 0, 0.75, 1], 0.9]}}
    (annotation,) = json.loads(export("-f", "coco", records=[box]))["annotations"]
    assert (annotation["bbox"], annotation["area"]) == ([10, 0, 20, 30], 600)
    empty = json.loads(export("-f", "coco", records=[]))
    assert empty == {"images": [], "annotations": [], "categories": []}


@pytest.mark.parametrize(
    ("language", "words", "parent"),
    [("de", [], "automatisch|"), ("de", ["--xmp-prefix", "auto"], "auto|"),
     ("en", [], "auto|"), ("en", ["--xmp-prefix", ""], "")],
)  # fmt: skip
def test_tags_have_a_parent_which_is_no_car(export, language, words, parent):
    records = [{"image": "a.jpg", "tags": ["Hund"], "tag_language": language}]
    export("--xmp", *words, records=records)
    document = XmpDocument(SIDECAR.read_bytes())
    assert document.items(HIERARCHICAL.property) == [f"{parent}Hund"]
    assert export("-f", "exiftool-csv", *words, records=records).endswith(f",{parent}Hund\n")


def test_the_gallery_has_the_owner_s_keywords(export):
    records = [{"image": "a.jpg", "tags": ["wall", "red"]}]
    export("--xmp", records=records)
    hers = ["Red", "Urlaub|Ostsee", "Personen|Anna", "darktable|format|jpg"]
    paths = ["auto|wall", "auto|red", *hers]
    SIDECAR.write_bytes(rewritten(SIDECAR.read_bytes(), lr_hierarchicalSubject=paths))
    line = export("-f", "jsonl", "--gallery", "page.html", records=records)
    assert json.loads(line)["tags"] == ["wall", "red"]
    (photo,) = gallery_photos(Path("page.html"))
    assert [*photo["tags"]] == ["wall", "red", "Ostsee", "Anna"]
