"""Published benchmarks and predictions, from small files of ours in the forms of their owners."""

import json
import shutil
from collections import Counter
from pathlib import Path

import predictions
import pytest
import torch
from benchmark import BENCHMARKS, main, open_benchmark
from PIL import Image

from ramctl.errors import RunProblem
from tests.conftest import SHARED
from tests.support import DATA


@pytest.fixture
def folder(tmp_path):
    """Writes files below a folder; text, or what becomes JSON."""

    def write(files) -> Path:
        for name, content in files.items():
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return tmp_path / "data"

    return write


def truth(name, folder, **options):
    """The classes, and of each photo what is true and uncertain."""
    benchmark = open_benchmark(name, folder, **options)
    rows = [[row["image"], row["tags"], row.get("uncertain")] for row in benchmark.rows]
    return benchmark.classes.tags, rows


def test_numbered_classes_of_one_name_are_two(folder, tmp_path, monkeypatch, capsys):
    data = folder({
        "imagenet_multi_1000_taglist.txt": "missile\ncat\nmissile\n",
        "imagenet_multi_1000_annots.txt": "a.JPEG,2 1\nb.JPEG\n",
    })  # fmt: skip
    classes, mapping = tmp_path / "classes.jsonl", tmp_path / "map.tsv"
    words = ["imagenet-multi-1000", data, "--classes", classes, "--map", mapping]
    monkeypatch.setattr("sys.argv", ["benchmark.py", *map(str, words)])
    assert main() == 0
    assert list(map(json.loads, capsys.readouterr().out.splitlines())) == [
        {"image": "a.JPEG", "tags": ["missile (2)", "cat"]}, {"image": "b.JPEG", "tags": []},
    ]  # fmt: skip
    names = [json.loads(line)["tag"] for line in classes.open()]
    assert (names, mapping.read_text()) == (
        ["missile", "cat", "missile (2)"], "missile (2)\tmissile\n",
    )  # fmt: skip


OBJECTS = [{"image_id": 7, "category_id": 17}, {"image_id": 7, "category_id": 17, "iscrowd": 1}]
SEGMENTS = [
    {"image_id": 7, "segments_info": [{"category_id": 17}]}, {"image_id": 5, "segments_info": []},
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind", "annotations"),
    [("coco-80", "instances", OBJECTS), ("coco-133", "panoptic", SEGMENTS)],
)
def test_coco_s_photos_without_any_object_count(folder, name, kind, annotations):
    known = {
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 5, "file_name": "5.jpg"}],
        "annotations": annotations,
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }
    photos = [["7.jpg", ["cat"], None], ["5.jpg", [], None]]
    data = folder({f"annotations/{kind}_val2017.json": known})
    assert truth(name, data) == (["dog", "cat"], photos)


ADE = """Idx	Ratio	Train	Val	Stuff	Name
1	0.15	11664	1172	1	wall
2	0.1	6046	612	1	building, edifice
3	0	1	1	0	house, edifice
"""
ADE_CSV = ADE.replace("	", ",").replace(", edifice", ";edifice")
CLEAN = {"ade20k_clean_labels_issue84.txt": "edifice\nwall\n"}


def masks(data, *shares):
    """Masks of 100 pixels, of which each class has so many."""
    place = data / "annotations" / "validation"
    place.mkdir(parents=True)
    for number, own in enumerate(shares, 1):
        pixels = [id for id, many in own.items() for _ in range(many)]
        mask = Image.new("L", (10, 10))
        mask.putdata(pixels + [0] * (100 - len(pixels)))
        mask.save(place / f"ADE_val_{number:08}.png")


def test_ade20k_s_classes_are_those_of_pixels_and_clean_names_stand_for_several(folder):
    data = folder({"ADEChallengeData2016/objectInfo150.txt": ADE} | CLEAN)
    masks(data, {1: 60, 2: 4}, {3: 30}, {})
    photos = [f"ADE_val_{n:08}.jpg" for n in (1, 2, 3)]
    assert truth("ade20k", data, min_area=0.05) == (
        ["wall", "building", "house"],
        [[photos[0], ["wall"], ["building"]], [photos[1], ["house"], []], [photos[2], [], []]],
    )
    classes, said = truth("ade20k-clean", data)
    assert classes == ["edifice", "wall"]
    assert [tags for _, tags, _ in said] == [["wall", "edifice"], ["edifice"], []]


def test_ade20k_is_read_from_lists_of_objects_where_there_are_no_masks(folder):
    place = "ADE20K_2016_07_26/images/validation/a/abbey"
    listed = """001 # 0 # 0 # wall # wall # ""
002 # 0 # 1 # building, edifice # tower block # "tall, grey"
003 # 1 # 0 # house, edifice # window # ""
004 # 0 # 0 # snail # snail # ""
"""
    data = folder(
        {"object150_info.csv": ADE_CSV, f"{place}/ADE_val_00000001_atr.txt": listed} | CLEAN
    )
    photo = "ADE_val_00000001.jpg"
    assert truth("ade20k", data)[1] == [[photo, ["wall", "building"], None]]
    assert truth("ade20k-clean", data)[1] == [[photo, ["wall", "edifice"], None]]
    masks(data, {1: 60})
    assert truth("ade20k", data)[1] == [[photo, ["wall"], []]]


def test_what_is_missing_or_damaged_is_named(folder, tmp_path):
    for name in BENCHMARKS:
        with pytest.raises(RunProblem, match=r"no \S+\.(txt|json|csv)"):
            open_benchmark(name, tmp_path)
    data = folder({"instances_val2017.json": {"images": [{}], "annotations": []}})
    with pytest.raises(RunProblem, match="damaged files of coco-80: KeyError"):
        truth("coco-80", data)


#: photos, photos without any class, positives, classes, distinct names
COUNTS = {
    "openimages-common-214": (57224, 157, 67866, 214, 214),
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


PREDICTIONS = DATA / "predictions"
MKT = {"mountain": 0.0951, "sky": 0.084, "train": -0.012}
#: format, file or folder: of each photo the scores or tags
READ = {
    ("panoptic", "panoptic.json"): [
        ("pasture.jpg", ["mountain-merged", "sky-other-merged"]),
        ("ore-train.jpg", ["train"]),
        ("kite", []),
    ],
    ("mkt", "mkt"): [("ore-train.jpg", {"train": 0.07, "sky": 0.0}), ("pasture", MKT)],
    ("mkt", "mkt/pasture.txt"): [("pasture", MKT)],
}


@pytest.fixture
def read_predictions(monkeypatch, capsys):
    """Runs the script: its status, records and messages."""

    def go(*arguments):
        monkeypatch.setattr("sys.argv", ["predictions.py", *map(str, arguments)])
        status = predictions.main()
        out, err = capsys.readouterr()
        return status, [json.loads(line) for line in out.splitlines()], err.splitlines()

    return go


@pytest.mark.parametrize(("form", "name"), READ)
def test_a_published_form_is_read(form, name, read_predictions):
    status, rows, messages = read_predictions(form, PREDICTIONS / name)
    found = [(row["image"], row.get("scores", row.get("tags"))) for row in rows]
    assert (status, found, messages) == (0, READ[form, name], [])


def test_the_authors_logits_are_rows_of_the_photos_in_pred_txt(read_predictions, tmp_path):
    shutil.copy(PREDICTIONS / "ram" / "pred.txt", tmp_path)
    table = torch.tensor([[0.75, 0.5, 0.0], [0.25, 0.0, 1.0], [0.125, 0.0, 0.0]])
    torch.save(table, tmp_path / "logits.pth")
    (tmp_path / "labels.txt").write_text("mountain\nsky\ntrain\n")
    status, rows, _ = read_predictions("logits", tmp_path, "--labels", tmp_path / "labels.txt")
    names = ["mountain", "sky", "train"]
    assert (status, rows) == (0, [
        {"image": "pasture", "tags": ["mountain", "sky"], "label_names": names,
         "dense": [0.75, 0.5, 0.0]},
        {"image": "ore-train", "tags": ["train"], "dense": [0.25, 0.0, 1.0]},
        {"image": "kite", "tags": [], "dense": [0.125, 0.0, 0.0]},
    ])  # fmt: skip
    status, rows, messages = read_predictions("logits", tmp_path)
    assert (status, rows) == (1, []) and "3 x 3 numbers for 3 photos and 0 labels" in messages[0]
