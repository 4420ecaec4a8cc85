"""The authors' behaviour, where it changes results, stands behind a named option."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.model.caption_tokenizer import CaptionTokenizer, load_tokenizer, train_tokenizer
from ramctl.model.preset import load_preset
from ramctl.records.labels import Labels
from ramctl.training.annotations import read_records
from ramctl.training.augmentation import OPERATIONS, TrainingPhoto, random_crop
from ramctl.training.data import Targets, TrainingSet
from ramctl.training.features import UNCHANGED
from ramctl.training.losses import Counts
from tests.training.conftest import DATA, settings, steps_of, write_records
from tests.training.test_objective import make_batch, make_task

BY_HALF = {"ShearX", "ShearY", "Rotate"}  # another interpolation than OpenCV's


@pytest.fixture(scope="module")
def augmented(shared):
    return np.load(shared / "parity" / "augment_expected.npz")


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"AutoContrast"}))
def test_operations_do_what_the_authors_do(augmented, name):
    photo = Image.fromarray(augmented["input"])
    for sign in ("pos", "neg"):
        if f"{name}.{sign}" not in augmented.files:
            continue
        # Their argument's sign, and OpenCV's direction of shears and rotations.
        direction = 1.0 if sign == "pos" else -1.0
        direction *= -1 if name in BY_HALF else 1
        ours = np.asarray(OPERATIONS[name](photo, direction * 0.5)).astype(int)
        difference = np.abs(ours - augmented[f"{name}.{sign}"])
        if name in BY_HALF:
            assert difference.mean() < 3 and (difference > 8).mean() < 0.03
        else:
            assert difference.max() == 0


@pytest.mark.shared
def test_autocontrast_stretches_where_the_authors_whitens(augmented):
    photo, dark = (Image.fromarray(augmented[name]) for name in ("input", "input_low0"))
    stretched = np.asarray(OPERATIONS["AutoContrast"](photo, 0))
    assert (stretched.min(), stretched.max()) == (0, 255)
    out = np.asarray(OPERATIONS["AutoContrast"](dark, 0))
    assert np.array_equal(out, augmented["AutoContrast_low0"])


def test_a_random_crop_has_the_area_that_is_asked_for_and_any_shape_from_3_4_to_4_3():
    x, y = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2)  # each pixel says where it was
    photo, random = Image.fromarray(np.stack([x, y, y], -1)), np.random.default_rng(0)
    crops = np.array([random_crop(photo, (0.25, 0.25), 32, random) for _ in range(500)], int)
    first, last = crops[:, 4, 4, :2].T, crops[:, 28, 28, :2].T
    width, height = (last - first) * 32 / 24
    assert width * height == pytest.approx(128**2, rel=0.04)
    widest, aspects = np.log(4 / 3), np.log(width / height)
    assert (aspects.min(), aspects.max()) == pytest.approx((-widest, widest), abs=0.03)
    assert (aspects.mean(), aspects.std()) == pytest.approx((0, widest / 3**0.5), abs=0.03)
    assert (first.min(1) < 20).all() and (last.max(1) > 238).all()  # it may be anywhere


@pytest.mark.parametrize(("loader", "expected"), [("official", (255, 0, 0)), ("fast", (255,) * 3)])
def test_photos_are_read_in_training_as_in_tagging(tmp_path, loader, expected):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    changes = {"size": 8, "loader": loader, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    preprocess = dataclasses.replace(load_preset("ram-swin-b").preprocess, **changes)
    read = TrainingPhoto(preprocess, UNCHANGED)
    photo = read("clear.png", tmp_path, np.random.default_rng(0))
    assert np.round(photo[:, 4, 4]).tolist() == list(expected)


@pytest.mark.parametrize(
    ("order", "expected"), [("given", "ball | dog | grass"), ("labels", "grass | dog | ball")]
)
def test_a_captions_tags_are_fed_as_they_are_named_or_as_the_authors_labels_stand(
    order, expected, tmp_path
):
    preset = load_preset("tiny", [f"model.captioning.tag_order={order}"])
    train_tokenizer(["ball dog grass |"] * 3, 60).save(str(tmp_path / "t.json"))
    tokenizer = CaptionTokenizer(load_tokenizer(tmp_path / "t.json"), preset.model.captioning)
    named = ["ball", "dog", "grass"]
    record = {
        "image": str(DATA / "photos" / "kite.jpg"), "tags": named,
        "captions": ["a ball, a dog on grass"], "caption_tags": [[*named, "ball"]],
    }  # fmt: skip
    path = write_records(tmp_path / "in.jsonl", [record])
    records = read_records(tmp_path / "records.jsonl", [str(path)], None, pytest.fail, "train")
    targets = Targets(Labels.from_tags(["grass", "dog", "ball"]))
    photo = TrainingPhoto(preset.preprocess, UNCHANGED)
    photos = TrainingSet(records, targets, photo, tokenizer=tokenizer)
    pieces = photos[0, np.array([0])].captions.tag_ids.numpy()
    assert tokenizer.tokenizer.decode(pieces[0].tolist()) == expected


@pytest.mark.parametrize("objective", ["ram", "tag2text"])
def test_the_official_loss_scales_the_summed_tag_loss_to_the_caption_loss(objective):
    changes = ("training.loss=ram-official", f"training.objective={objective}")
    official = make_task(*changes, "training.distill_weight=0")
    batch = make_batch(3)
    sums, counts = official(batch), official.counts(batch)
    # Of the counts of the whole step the authors know nothing.
    step = {"tag": 99.0, "caption": 99.0}
    total, half = (official.reduce(sums, Counts(counts, step, n_passes, 1)) for n_passes in (1, 2))
    caption = sums["caption"] / counts["caption"]
    assert total.item() == pytest.approx(2 * caption.item(), rel=1e-5)
    assert half.item() == pytest.approx(caption.item(), rel=1e-5)  # it is a mean over passes
    weight = official.model.label_queries.projection.weight
    (gradient,) = torch.autograd.grad(total, weight, retain_graph=True)
    (summed,) = torch.autograd.grad(sums["tag"], weight)
    ratio = (caption / sums["tag"]).item()
    torch.testing.assert_close(gradient, summed * ratio, rtol=1e-4, atol=1e-7)


def test_the_official_options_train_through_the_command(command, parsed, swin_options, tmp_path):
    changes = ["loss=ram-official", "augment.operations=2"]
    options = ["--out", "x", "--steps", 2, "--events", "e.jsonl", *swin_options]
    options += settings("model.captioning.pieces=bert", *(f"training.{c}" for c in changes))
    command("train", parsed, *options)
    assert set(steps_of("e.jsonl")[0]["losses"]) == {"tag", "caption", "distill caption"}
    pieces = load_tokenizer(tmp_path / "x" / "tokenizer.json")
    # As BERT's own tokenizer numbers them (ram_official A3).
    assert pieces.encode("a brown dog", add_special_tokens=False).ids == [1037, 2829, 3899]
    assert [pieces.token_to_id(piece) for piece in ("[CLS]", "[DEC]", "[ENC]")] == [
        101, 30522, 30523,
    ]  # fmt: skip
