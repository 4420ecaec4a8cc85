"""Published benchmarks, from small files of ours in the forms of their owners."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from benchmark import BENCHMARKS, main, open_benchmark
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.evaluation.evaluate import EvalOptions, run
from tests.conftest import SHARED

CATEGORIES = [{"supercategory": "animal", "id": 18, "name": "dog"},
              {"supercategory": "animal", "id": 17, "name": "cat"}]  # fmt: skip
IMAGES = [{"id": 7, "file_name": "000000000007.jpg", "height": 4, "width": 4},
          {"id": 5, "file_name": "000000000005.jpg", "height": 4, "width": 4}]  # fmt: skip
OBJECTS = [
    {"id": 1, "image_id": 7, "category_id": 17, "bbox": [0, 0, 1, 1], "iscrowd": 0},
    {"id": 2, "image_id": 7, "category_id": 17, "bbox": [1, 1, 1, 1], "iscrowd": 1},
]
SEGMENTS = [
    {"image_id": 7, "file_name": "7.png", "segments_info": [{"id": 1, "category_id": 17}]},
    {"image_id": 5, "file_name": "5.png", "segments_info": []},
]


@pytest.fixture
def folder(tmp_path):
    """Writes files below a folder; text, or what becomes JSON."""

    def write(files) -> Path:
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            packed = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
            path.write_bytes(packed)
        return tmp_path / "data"

    return write


def truth(name, folder):
    """The classes, and of each photo what is true, uncertain and not true."""
    benchmark = open_benchmark(name, folder)
    keys = ("image", "tags", "uncertain", "negatives")
    return benchmark.classes.tags, [[row.get(key) for key in keys] for row in benchmark.rows]


@pytest.fixture
def evaluate(tmp_path, monkeypatch, capsysbinary):
    """Evaluates predictions against what the script writes."""
    monkeypatch.chdir(tmp_path)

    def go(rows, *arguments):
        options = ("--classes", "classes.jsonl", "--map", "map.tsv")
        monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, arguments), *options])
        assert main() == 0
        Path("truth.jsonl").write_bytes(capsysbinary.readouterr().out)
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = EvalOptions(
            "truth.jsonl", ("rows.jsonl",), classes=Path("classes.jsonl"), map_file=Path("map.tsv"),
            output=Path("out.json"),
        )  # fmt: skip
        assert run(options).exit_code == 0
        return json.loads(Path("out.json").read_text())

    return go


@pytest.mark.parametrize("place", ["", "openimages_rare_200/"])
def test_the_authors_lists(folder, place):
    stem = f"{place}openimages_rare_200_ram"
    data = folder({
        f"{stem}_taglist.txt": "dog\ncat\n",
        f"{stem}_annots.txt.gz": "test/a,cat\ntest/b\n",
    })  # fmt: skip
    expected = [["test/a", ["cat"], None, None], ["test/b", [], None, None]]
    assert truth("openimages-rare-200", data) == (["dog", "cat"], expected)


def test_numbered_classes_of_one_name_are_two(folder, evaluate):
    data = folder({
        "imagenet_multi_1000_taglist.txt": "missile\ncat\nmissile\n",
        "imagenet_multi_1000_annots.txt": "a.JPEG,2 1\nb.JPEG\nc.JPEG,0\n",
    })  # fmt: skip
    said = [["a.JPEG", ["missile (2)", "cat"], None, None], ["b.JPEG", [], None, None],
            ["c.JPEG", ["missile"], None, None]]  # fmt: skip
    assert truth("imagenet-multi-1000", data) == (["missile", "cat", "missile (2)"], said)
    # By name alone they cannot be told apart: each is as likely as the other.
    scores = {"a": (0.8, 0.9), "b": (0.2, 0.1), "c": (0.9, 0.2)}
    rows = [{"image": f"{name}.JPEG", "scores": {"missile": missile, "cat": cat}}
            for name, (missile, cat) in scores.items()]  # fmt: skip
    result = evaluate(rows, "imagenet-multi-1000", data)
    assert result["mAP"] == pytest.approx((0.5 + 1 + 1) / 3)
    (data / "imagenet_multi_1000_annots.txt").write_text("d.JPEG,3\n")
    with pytest.raises(IndexError):
        truth("imagenet-multi-1000", data)


@pytest.mark.parametrize(
    ("name", "file", "annotations"),
    [
        ("coco-80", "annotations/instances_val2017.json", OBJECTS),
        ("coco-80", "instances_val2017.json.gz", OBJECTS),
        ("coco-133", "annotations/panoptic_val2017.json", SEGMENTS),
    ],
)
def test_coco(folder, name, file, annotations):
    """Photos without any object count."""
    known = {"info": {}, "images": IMAGES, "annotations": annotations, "categories": CATEGORIES}
    photos = [["000000000007.jpg", ["cat"], None, None], ["000000000005.jpg", [], None, None]]
    assert truth(name, folder({file: known})) == (["dog", "cat"], photos)


ADE = """Idx	Ratio	Train	Val	Stuff	Name
1	0.15	11664	1172	1	wall
2	0.1	6046	612	1	building, edifice
3	0	1	1	0	house
"""
ADE_CSV = ADE.replace("	", ",").replace("building, ", "building;")


def masks(data, *shares, inside=""):
    """Masks of 100 pixels, of which each class has so many."""
    place = data / inside / "annotations" / "validation"
    place.mkdir(parents=True)
    for number, own in enumerate(shares, 1):
        pixels = [id for id, many in own.items() for _ in range(many)]
        mask = Image.new("L", (10, 10))
        mask.putdata(pixels + [0] * (100 - len(pixels)))
        mask.save(place / f"ADE_val_{number:08}.png")
    return place


@pytest.mark.parametrize("listed", [("objectInfo150.txt", ADE), ("object150_info.csv", ADE_CSV)])
def test_ade20k_classes_are_those_of_pixels_and_small_ones_count_neither_way(folder, listed):
    data = folder(dict([listed]))
    place = masks(data, {1: 60, 2: 4}, {3: 30}, {})
    classes, said = truth("ade20k", data)
    assert classes == ["wall", "building", "house"]
    assert said == [
        ["ADE_val_00000001.jpg", ["wall", "building"], [], None],
        ["ADE_val_00000002.jpg", ["house"], [], None],
        ["ADE_val_00000003.jpg", [], [], None],
    ]  # fmt: skip
    row = next(open_benchmark("ade20k", data, 0.05).rows)
    assert (row["tags"], row["uncertain"]) == (["wall"], ["building"])
    Image.new("RGB", (4, 4)).save(place / "ADE_val_00000004.png")
    with pytest.raises(RunProblem, match="one byte a pixel"):
        truth("ade20k", data)


def test_a_clean_name_stands_for_all_ade20k_classes_that_have_it(folder, evaluate):
    lines = ADE.replace("house", "house, edifice")
    listed = "edifice\nwall\nwall\n"
    place = "ADEChallengeData2016"  # as it is unpacked
    data = folder({f"{place}/objectInfo150.txt": lines, "ade20k_clean_labels_issue84.txt": listed})
    masks(data, {1: 60, 2: 4}, {3: 30}, {1: 5}, inside=place)
    found = open_benchmark("ade20k-clean", data)
    assert found.classes.tags == ["edifice", "wall"]
    assert [row["tags"] for row in found.rows] == [["wall", "edifice"], ["edifice"], ["wall"]]
    rows = [
        {"image": f"ADE_val_0000000{n}.jpg", "scores": {"edifice": score, "wall": 1 - score}}
        for n, score in ((1, 0.9), (2, 0.8), (3, 0.1))
    ]
    result = evaluate(rows, "ade20k-clean", data)
    # Edifices come first; walls are on the first and the last photo: 1 and 2 of 3.
    assert result["mAP"] == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)


ATTRIBUTES = """001 # 0 # 0 # wall # wall # ""
002 # 0 # 1 # building, edifice # tower block # "tall, grey"
003 # 1 # 0 # house # window # ""
004 # 0 # 0 # wall # wall # ""
005 # 0 # 0 # snail # snail # ""
"""


@pytest.mark.parametrize("clean", [False, True])
def test_ade20k_is_read_from_lists_of_objects_where_there_are_no_masks(folder, clean):
    place = "ADE20K_2016_07_26/images/validation"
    data = folder({
        "objectInfo150.txt": ADE,
        "ade20k_clean_labels_issue84.txt": "edifice\nwall\n",
        f"{place}/a/abbey/ADE_val_00000001_atr.txt": ATTRIBUTES,
        "ADE20K_2016_07_26/images/training/ADE_train_00000001_atr.txt": ATTRIBUTES,
    })  # fmt: skip
    name = "ade20k-clean" if clean else "ade20k"
    tags = ["wall", "edifice" if clean else "building"]
    assert truth(name, data)[1] == [["ADE_val_00000001.jpg", tags, None, None]]
    (data / place / "b").mkdir()
    (data / place / "b" / "ADE_val_00000002_atr.txt").write_text("no list\n")
    with pytest.raises(RunProblem, match=r"ADE_val_00000002_atr\.txt: not a list of objects"):
        truth(name, data)
    masks(data, {1: 60})
    assert truth(name, data)[1] == [["ADE_val_00000001.jpg", ["wall"], [], None]]


def test_what_is_missing_is_named(tmp_path):
    for name in BENCHMARKS:
        with pytest.raises(RunProblem, match=r"no \S+\.(txt|json|csv)"):
            open_benchmark(name, tmp_path)


def test_damaged_files_are_an_error_in_a_line(folder, monkeypatch, capsys):
    data = folder({"instances_val2017.json": {"images": [{}], "annotations": []}})
    with pytest.raises(RunProblem, match="damaged files of coco-80: KeyError"):
        truth("coco-80", data)
    known = {"images": [{}], "annotations": [], "categories": CATEGORIES}
    folder({"instances_val2017.json": known})
    monkeypatch.setattr("sys.argv", ["benchmark.py", "coco-80", str(data)])
    assert main() == 1 and capsys.readouterr().err.startswith("benchmark.py: coco-80: ")


#: photos, photos without any class, positives, classes, distinct names
COUNTS = {
    "openimages-common-214": (57224, 157, 67866, 214, 214),
    "openimages-rare-200": (21991, 0, 29519, 200, 200),
    "hico-600": (9658, 0, 20268, 600, 600),
    "imagenet-multi-1000": (50000, 3163, 57553, 1000, 998),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", COUNTS)
def test_the_authors_files_as_published(name):
    benchmark = open_benchmark(name, SHARED / "labels" / "ram")
    photos = [row["tags"] for row in benchmark.rows]
    tags = Counter(tag for tags in photos for tag in tags)
    classes = benchmark.classes
    counts = len(photos), photos.count([]), tags.total(), len(classes)
    assert (*counts, len(classes) - len(benchmark.mapping)) == COUNTS[name]
    assert all(len(classes.ids(tag)) == 1 for tag in tags)
