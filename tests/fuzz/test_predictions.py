"""Damaged answers of services and exports of other programs, read as `eval` reads them."""

import json
import shutil

import pytest

from ramctl.evaluation.benchmarks import open_benchmark
from ramctl.evaluation.predictions import read_table
from ramctl.evaluation.reading import TruthTable
from ramctl.evaluation.thresholds import Cut
from tests.evaluation import test_benchmarks as published
from tests.fuzz.damage import survive
from tests.fuzz.test_records import classes, in_file, intake
from tests.readers.test_predictions import DATA, READ

FORMS = {name: form for name, (form, _) in READ.items() if (DATA / name).is_file()}
FORMS |= {"google/pasture.json": "google", "fiftyone/samples.json": "fiftyone"}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("is_named", [True, False])
def test_predictions_of_other_systems(name, is_named, tmp_path):
    form = FORMS[name] if is_named else None

    def read(path) -> None:
        read_table(str(path), classes(), Cut.parse(None), intake(), form=form)

    place = tmp_path / (DATA / name).name
    survive(in_file(place, read), [(DATA / name).read_bytes()], f"{name} {is_named}")


def test_logits(tmp_path):
    torch = pytest.importorskip("torch")
    shutil.copy(DATA / "ram" / "pred.txt", tmp_path)
    path = tmp_path / "logits.pth"
    torch.save(torch.rand(3, 3), path)

    def read(path) -> None:
        read_table(str(path), classes(), Cut.parse(None), intake())

    survive(in_file(path, read), [path.read_bytes()], "logits.pth")


KNOWN = {"info": {}, "images": published.IMAGES, "categories": published.CATEGORIES}
FILES = {
    "imagenet-multi-1000": {
        "imagenet_multi_1000_taglist.txt": "dog\ncat\ndog\n",
        "imagenet_multi_1000_annots.txt": "a.JPEG,2 1\nb.JPEG\n",
    },
    "coco-80": {"instances_val2017.json": json.dumps(KNOWN | {"annotations": published.OBJECTS})},
    "coco-133": {"panoptic_val2017.json": json.dumps(KNOWN | {"annotations": published.SEGMENTS})},
    "voc2007": {
        "ImageSets/Main/test.txt": "000001\n",
        "Annotations/000001.xml": published.XML.format("000001"),
    },
    "open-images-v6": {
        "class-descriptions-boxable.csv": "/m/animal,Animal\n/m/dog,Dog\n/m/cat,Cat\n",
        "bbox_labels_600_hierarchy.json": json.dumps(published.HIERARCHY),
        "test-annotations-human-imagelabels.csv": published.VERIFIED,
    },
}


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in FILES for file in FILES[name]])
def test_files_of_benchmarks(name, file, tmp_path):
    for other, content in FILES[name].items():
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text(content)

    def read(_) -> None:
        TruthTable.of(open_benchmark(name, tmp_path).items, intake())

    survive(in_file(tmp_path / file, read), [FILES[name][file].encode()], file)
