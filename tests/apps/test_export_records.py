"""`ramctl export` from the outside: formats of other programs, sidecars, pages, tables."""

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from ramctl.metadata.sidecar_merge import HIERARCHICAL
from ramctl.metadata.xmp_document import XmpDocument
from tests.conftest import REPOSITORY
from tests.support import gallery_photos, write_records

RESULTS = [
    {"image": "a.jpg", "tags": ["dog", "grass"], "scores": {"dog": 0.9, "grass": 0.5}, "mine": 1},
    {"image": "a.png", "tags": ["cat"], "scores": {"cat": 0.75}},
    {"image": "sub/b c.jpg", "tags": ["dog", "<sofa>"], "captions": ["a dog"]},
]


@pytest.fixture
def export(command):
    """Runs `ramctl export` on RESULTS in a folder with their photos."""
    Path("sub").mkdir()
    for record in RESULTS:
        Image.new("RGB", (40, 30), "red").save(record["image"])
    write_records(Path("tags.jsonl"), RESULTS)

    def run(*words, code=0, source="tags.jsonl") -> str:
        done = command("export", source, *words, code=code)
        return done.messages if code else done.stdout.decode()

    return run


def test_records_go_through_and_get_sidecars_and_a_page(export):
    assert [json.loads(line) for line in export("-f", "jsonl").splitlines()] == RESULTS
    export("--xmp", "--gallery", "page.html", "-o", "out.csv", "-f", "csv")
    assert "auto|dog" in Path("a.jpg.xmp").read_text()
    assert "auto|&lt;sofa&gt;" in Path("sub/b c.jpg.xmp").read_text()
    assert Path("out.csv").read_text().splitlines()[1] == 'a.jpg,"dog, grass","0.9000, 0.5000",'
    assert len(gallery_photos(Path("page.html"))) == 3


def test_tags_can_be_chosen_from(export):
    def tags(*words):
        lines = export("-f", "jsonl", *words).splitlines()
        return [json.loads(line)["tags"] for line in lines]

    assert tags("--threshold", "0.7") == [["dog"], ["cat"], ["dog", "<sofa>"]]
    Path("thresholds").write_text('{"tag":"dog","threshold":0.99}\n{"tag":"cow","threshold":0}\n')
    assert tags("--threshold", "thresholds") == [["grass"], ["cat"], ["dog", "<sofa>"]]  # no scores
    assert tags("--top", "1") == [["dog"], ["cat"], ["dog"]]
    Path("only.txt").write_text("dog\n")
    assert tags("--include", "only.txt") == [["dog"], [], ["dog"]]
    assert tags("--exclude", "only.txt") == [["grass"], ["cat"], ["<sofa>"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to write"),
        (["--xmp", "-o", "out"], "-o FILE needs -f"),
        (["--xmp-remove", "--xmp"], "--xmp-remove"),
        (["-f", "csv", "--photos-at", "x"], "--photos-at"),
    ],
)
def test_what_does_not_go_together_is_said_before_any_work(export, words, said):
    before = sorted(Path().iterdir())
    assert said in export(*words, code=2)
    assert sorted(Path().iterdir()) == before


def test_what_is_no_tagged_record_is_rejected(export):
    Path("bad.jsonl").write_text('{"image": "a.jpg"}\n{"image": "a.jpg", "tags": "dog"}\n')
    told = export("--xmp", code=3, source="bad.jsonl")
    assert "bad.jsonl:1: no tags field" in told and "bad.jsonl:2: tags" in told
    Path("bad.jsonl").write_text('{"image": "a.jpg", "tags": ["dog"], "scores": "high"}\n')
    assert "bad.jsonl:1: scores is not an object" in export("--xmp", code=3, source="bad.jsonl")
    Path("bad.jsonl").write_text('{"tags": ["dog"]}\n')
    assert "bad.jsonl:1: " in (told := export("-f", "text", code=3, source="bad.jsonl"))
    assert "image" in told
    Path("a.png").unlink()
    assert "a.png: no such file" in export("--xmp", code=3)


def test_machine_tags_are_taken_out_of_the_sidecars_of_records_and_of_photos(export, ramctl):
    export("--xmp")
    export("--xmp-remove", "--dry-run")
    assert len(list(Path().rglob("*.xmp"))) == 3
    export("--xmp-remove")
    assert not list(Path().rglob("*.xmp"))
    export("--xmp")
    done = ramctl("export", "--xmp-remove", "-R", ".")
    assert (done.returncode, done.stdout) == (0, b"")
    assert not list(Path().rglob("*.xmp"))


def test_a_dry_run_shows_additions_and_removals_and_writes_nothing(export):
    export("--xmp")
    Path("a.png.xmp").write_text("no sidecar")
    Path("tags.jsonl").write_text(Path("tags.jsonl").read_text().replace('"dog"', '"poodle"'))
    before = sorted(Path().rglob("*"))
    words = ["--gallery", "page.html", "-f", "csv", "-o", "out.csv"]
    told = export("--xmp", "--dry-run", *words, code=3)
    assert sorted(Path().rglob("*")) == before
    assert "would write a.jpg.xmp: + poodle, + auto|poodle, - dog, - auto|dog\n" in told
    assert "a.png.xmp" in told
    assert "1 rejected, 2 sidecars would change, " in told.splitlines()[-1]
    assert "would delete a.jpg.xmp: - dog, " in export("--xmp-remove", "--dry-run", code=3)
    assert "would write sub/b c.txt: + poodle, + <sofa>\n" in export("--txt", "--dry-run", code=3)


@pytest.mark.skipif(not shutil.which("exiftool"), reason="needs exiftool")
def test_the_readmes_exiftool_line_adds_and_may_run_twice(export, tmp_path):
    readme = (REPOSITORY / "ramctl" / "metadata" / "README.md").read_text("utf-8")
    text = readme.split("```sh\nexiftool")[1].split("```")[0].replace("\\\n", " ")
    line = ["exiftool", *shlex.split(text)]
    Path("photos").mkdir()
    photo = Path("photos/red.jpg")
    shutil.copy("a.jpg", photo)
    own = ["-IPTC:Keywords=Anna", "-XMP-dc:Subject=Paris, France", "-XMP-dc:Subject=red"]
    subprocess.run(["exiftool", "-q", "-overwrite_original", *own, photo], check=True)
    Path("tags.jsonl").write_text('{"image": "photos/red.jpg", "tags": ["red", "colour"]}\n')
    export("-f", "exiftool-csv", "-o", "tags.csv")
    for _ in range(2):
        subprocess.run(line, check=True, capture_output=True)
        done = subprocess.run(["exiftool", "-j", "-G1", photo], check=True, capture_output=True)
        (facts,) = json.loads(done.stdout)
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
    Path("tags.jsonl").write_text(json.dumps(box) + "\n")
    (annotation,) = json.loads(export("-f", "coco"))["annotations"]
    assert (annotation["bbox"], annotation["area"]) == ([10, 0, 20, 30], 600)
    Path("tags.jsonl").write_text("")
    empty = json.loads(export("-f", "coco"))
    assert empty == {"images": [], "annotations": [], "categories": []}


GERMAN = {"image": "a.jpg", "tags": ["Hund", "Baum", "wei\u00df"], "tag_language": "de"}
ENGLISH = {"image": "a.jpg", "tags": ["dog", "tree", "white"]}


def test_where_auto_is_a_car_the_parent_has_another_name(export):
    def parents(record, *words):
        write_records(Path("in.jsonl"), [record])
        export("--xmp", *words, source="in.jsonl")
        items = XmpDocument(Path("a.jpg.xmp").read_bytes()).items(HIERARCHICAL.property)
        return {item.partition("|")[0] for item in items}

    assert parents(GERMAN) == {"automatisch"}
    assert "automatisch|Hund" in export("-f", "exiftool-csv", source="in.jsonl")
    assert parents(GERMAN, "--xmp-prefix", "auto") == parents(ENGLISH) == {"auto"}


def test_the_gallery_has_the_owner_s_keywords(export):
    write_records(Path("in.jsonl"), [{"image": "a.jpg", "tags": ["wall", "red"]}])
    export("--xmp", source="in.jsonl")
    document = XmpDocument(Path("a.jpg.xmp").read_bytes())
    hers = ["Red", "Urlaub|Ostsee", "Personen|Anna", "darktable|format|jpg"]
    name = HIERARCHICAL.property
    document.set_items(name, [*document.items(name), *hers])
    Path("a.jpg.xmp").write_bytes(document.to_bytes())
    line = export("-f", "jsonl", "--gallery", "page.html", source="in.jsonl")
    assert json.loads(line)["tags"] == ["wall", "red"]
    (photo,) = gallery_photos(Path("page.html"))
    assert [*photo["tags"]] == ["wall", "red", "Ostsee", "Anna"]
