"""`make -C scripts/reproduce paper`: a checkpoint as the authors publish it, against the paper."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import paper
import pytest
import torch
from PIL import Image

from ramctl.checkpoints.official import official_targets
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import change_preset, finetuning_preset, load_preset
from tests.conftest import REPOSITORY
from tests.inference.peers.support import clip_tokenizer, save_clip_text
from tests.support import captured

__all__ = ["clip_tokenizer"]

SMALL_SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
COCO = ["dog", "car", "potted plant"]  # the last is no label: its name is embedded
ADE = ["wall", "building", "sky"]


def test_a_question_mark_is_any_digit_and_rounding_is_no_difference():
    assert paper.distance(86.54, "86.5") == paper.distance(56.9, "56.?") == 0
    assert paper.distance(86.8, "86.5") == pytest.approx(0.25)
    assert paper.distance(78.0, "79.0 t") == pytest.approx(-0.95)
    assert paper.distance(55.0, "56.?") == pytest.approx(-0.95)


def write_checkpoint(path: Path) -> None:
    """Random weights of RAM with a small Swin, under the authors' names."""
    preset = finetuning_preset(load_preset("ram-swin-b", ["model.captioning=false"]))
    encoder = {"width": 128, "options": SMALL_SWIN, "window_size": 3}
    model = {"encoder": encoder, "tag_decoder": {"width": 64, "ffn_width": 64}}
    preset = change_preset(preset, {"model": model, "preprocess": {"size": 96}})
    torch.manual_seed(0)
    model = build_ram(preset.model, image_size=preset.preprocess.size, n_labels=4585)
    torch.nn.init.normal_(model.labels.text)
    torch.save({"model": {n: t.detach() for n, t in official_targets(model).items()}}, path)


def write_photos(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in names:
        pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(folder / name)


def write_benchmarks(data: Path) -> None:
    """20 photos in the folders of OpenImages, COCO and ADE20K, and their owners' files."""
    photos = [f"{n:016x}" for n in range(8)]
    write_photos(data / "openimages" / "test", [f"{name}.jpg" for name in photos])
    folder = data / "openimages_common_214"
    folder.mkdir()
    names = ["accident", "accordion", "plane", "car"]
    annotations = [f"test/{p},{names[n % 4]}" for n, p in enumerate(photos)]
    (folder / "openimages_common_214_ram_taglist.txt").write_text("\n".join(names))
    (folder / "openimages_common_214_ram_annots.txt").write_text("\n".join(annotations))

    photos = [f"{n:012}.jpg" for n in range(6)]
    write_photos(data / "val2017", photos)
    (data / "annotations").mkdir()
    document = {
        "categories": [{"id": n + 1, "name": name} for n, name in enumerate(COCO)],
        "images": [{"id": n, "file_name": name} for n, name in enumerate(photos)],
        "annotations": [{"image_id": n, "category_id": n % 3 + 1} for n in range(6)],
    }
    (data / "annotations" / "instances_val2017.json").write_text(json.dumps(document))

    ade = data / "ADEChallengeData2016"
    photos = [f"ADE_val_{n:08}" for n in range(1, 7)]
    write_photos(ade / "images" / "validation", [f"{name}.jpg" for name in photos])
    masks = ade / "annotations" / "validation"
    masks.mkdir(parents=True)
    for n, name in enumerate(photos):
        Image.fromarray(np.full((4, 4), n % 3 + 1, np.uint8)).save(masks / f"{name}.png")
    rows = [f"{n + 1}\t0.1\t1\t1\t{name}" for n, name in enumerate(ADE)]
    (ade / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows))


def make(folder: Path, *variables: str, code: int) -> tuple[str, str]:
    """What the command prints; its environment is the one that runs the tests."""
    given = {"WORK": folder / "work", "WEIGHTS": folder / "weights", "DATA": folder / "data"}
    given |= {"PREDICTIONS": folder / "none", "RAMCTL_SHARED": folder / "none"}
    within = f"within=cd {REPOSITORY} && $(MAKE) PYTHON={sys.executable}"
    words = ["make", "-C", "scripts/reproduce", "paper", within, *variables]
    words += [f"{name}={path}" for name, path in given.items()]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
    done = captured(words, cwd=REPOSITORY, env=environment)
    assert f"Error {code}" in done.stderr if code else done.returncode == 0, done.stderr[-3000:]
    return done.stdout, done.stderr


@pytest.mark.slow
def test_a_checkpoint_of_random_weights_is_far_from_the_paper(tmp_path, clip_tokenizer):
    (tmp_path / "weights").mkdir()
    (tmp_path / "data").mkdir()
    weights = tmp_path / "weights" / "ram_swin_base_4m.pth"
    write_checkpoint(weights)
    save_clip_text(tmp_path / "weights" / "clip-vit-base-patch16", clip_tokenizer, 512)
    write_benchmarks(tmp_path / "data")
    printed, _ = make(tmp_path, "SYSTEMS=RAM-4M", code=1)
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if "|" in line][2:]
    assert [row[:3] for row in rows] == [
        ["RAM-4M", "OpenImages-common", "8 of 8"],
        ["RAM-4M", "COCO-80", "6 of 6"],
        ["RAM-4M", "ADE20k", "6 of 6"],
    ]
    assert [(row[4], row[8]) for row in rows] == [
        ("86.0", "79.2/73.7"), ("79.0 t", "81.8/66.1 t"), ("51.5", "47.0/47.6"),
    ]  # fmt: skip
    for row, tolerance in zip(rows, (0.3, 1.0, 1.0), strict=True):
        is_within = abs(float(row[5])) <= tolerance
        assert row[6] == f"{'yes' if is_within else '**no**'} (±{tolerance})"
        assert "(from 0.86 on)" in row[7]
    assert "needs annotations/panoptic_val2017.json in DATA: RAM-4M on COCO-133" in printed
    # Again: what there is, is kept; with a photo less it is not the paper's set.
    predictions = tmp_path / "work" / "predictions" / "RAM-4M"
    kept = (predictions / "ade20k.jsonl").stat().st_mtime_ns
    (predictions / "coco-80.jsonl").unlink()
    (tmp_path / "data" / "val2017" / "000000000003.jpg").unlink()
    printed, _ = make(tmp_path, "SYSTEMS=RAM-4M", code=1)
    assert "| 5 of 6 | " in printed and "**photos are missing**" in printed
    assert (predictions / "ade20k.jsonl").stat().st_mtime_ns == kept
    assert not [*predictions.glob("*partial*"), *predictions.glob(".*")]


def test_without_weights_it_names_what_it_needs(tmp_path):
    (tmp_path / "data").mkdir()
    write_benchmarks(tmp_path / "data")
    printed, _ = make(tmp_path, code=2)
    assert "needs `ram_swin_large_14m.pth` in WEIGHTS: RAM-14M on OpenImages-common" in printed
    assert "|" not in printed
