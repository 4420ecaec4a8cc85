"""Records to batches: their order, targets, photos kept back, looks, features; teachers."""

import dataclasses
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ramctl.errors import RunProblem
from ramctl.evaluation.tagger_scores import TaggerScores
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import load_preset
from ramctl.photos.decoding import load_photo
from ramctl.records.labels import Label, Labels
from ramctl.records.record import kinds_of
from ramctl.training.annotations import (
    Annotation,
    Caption,
    TagCounts,
    build_labels,
    read_annotation,
    read_records,
)
from ramctl.training.augmentation import OPERATIONS, UNCHANGED, TrainingPhoto, random_crop
from ramctl.training.data import (
    ABSENT,
    DENIED,
    PRESENT,
    UNKNOWN,
    Sampler,
    Targets,
    main_things,
    photo_features,
)
from ramctl.training.teachers import ClipTeacher, SoftTargets
from tests.support import problem_of
from tests.training.conftest import DATA, training_records, write_records

PREPROCESS = load_preset("tiny").preprocess
LABELS = Labels([Label("dog", synonyms=("puppy",)), Label("cat"), Label("sky"), Label("sea")])


def epoch_of(sampler: Sampler, number: int = 0) -> list[list[int]]:
    """The records of each step of an epoch, of all its passes."""
    steps, n = [], sampler.steps_an_epoch
    for step in range(number * n, (number + 1) * n):
        keys = list(sampler.keys(step, step + 1))
        assert len(keys) == sampler.n_passes(step)
        assert {epoch for epoch, _ in keys} == {number}
        steps.append([i for _, ids in keys for i in ids.tolist()])
    return steps


@given(
    n=st.integers(1, 60), batch=st.integers(1, 9), passes=st.integers(1, 3),
    world=st.integers(1, 4), seed=st.integers(0, 5), epoch=st.integers(0, 2),
    drop_last=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_each_record_comes_once_an_epoch_over_all_ranks(
    n, batch, passes, world, seed, epoch, drop_last
):
    ids = np.arange(100, 100 + n)
    ranks = [Sampler(ids, batch, passes, seed, drop_last, rank, world) for rank in range(world)]
    parts = zip(*(epoch_of(sampler, epoch) for sampler in ranks), strict=True)
    steps = [sorted(i for part in step for i in part) for step in parts]
    one = epoch_of(Sampler(ids, batch * world, passes, seed, drop_last), epoch)
    assert steps == [sorted(step) for step in one]
    taken = [i for step in steps for i in step]
    assert len(taken) == len(set(taken))
    if not drop_last:
        assert sorted(taken) == ids.tolist()
    elif n > batch * passes * world:
        assert {len(step) for step in steps} == {batch * passes * world}


def test_the_order_is_that_of_epoch_and_seed_from_any_step():
    sampler = Sampler(np.arange(23), 4, accumulation=2, seed=1)
    whole, rest = list(sampler.keys(0, 9)), list(sampler.keys(4, 9))
    for before, after in zip(whole[-len(rest) :], rest, strict=True):
        assert before[0] == after[0] and np.array_equal(before[1], after[1])
    first, second = (epoch_of(Sampler(np.arange(50), 50, seed=1), n) for n in (0, 1))
    assert first != second and first != epoch_of(Sampler(np.arange(50), 50, seed=2))


def read(**fields):
    return read_annotation({"image": "x.jpg", **fields})


def counts_of(records: list[dict]) -> TagCounts:
    counts = TagCounts()
    for fields in records:
        counts.add(read(**fields), kinds_of(fields))
    return counts


@pytest.mark.parametrize(
    ("tags", "fields", "expected"),
    [
        (["Sky", "puppy", "spaceship", "dog"], {}, [PRESENT, ABSENT, PRESENT, ABSENT]),
        (["puppy"], {"uncertain": ["dog", "cat", "zebra"]}, [PRESENT, UNKNOWN, ABSENT, ABSENT]),
        (["dog"], {"negatives": ["sky"]}, [PRESENT, UNKNOWN, DENIED, UNKNOWN]),
        (["dog"], {"negatives": []}, [PRESENT, UNKNOWN, UNKNOWN, UNKNOWN]),
        # A person decided on a model's tags; what is not decided is unknown.
        (["dog", "cat", "sea"], {"scores": {"dog": 0.9, "cat": 0.8, "sea": 0.7},
                                 "confirmed": ["puppy"], "refused": ["cat"]},
         [PRESENT, DENIED, UNKNOWN, UNKNOWN]),
        (["sky"], {"refused": ["cat"]}, [UNKNOWN, DENIED, PRESENT, UNKNOWN]),
    ],
)  # fmt: skip
def test_the_state_of_each_label_by_a_record(tags, fields, expected):
    note = read(tags=tags, **fields)
    assert Targets(LABELS).states(note).tolist() == expected
    truth = [ABSENT if state == DENIED else state for state in expected]
    assert Targets(LABELS).truth(note).tolist() == truth


def test_mentions_of_a_label_and_its_synonyms_add_up():
    tags = Counter({"dog": 3, "puppy": 2, "sea": 1, "zebra": 9, "yak": 1})
    counts, *outside = Targets(LABELS).counts(tags)
    np.testing.assert_array_equal(counts, [5, 0, 0, 1])
    assert outside == [2, 10]


def test_labels_are_the_tags_of_five_records_or_of_two_in_a_small_set():
    dogs = [{"tags": ["dog"]}] * 995
    for n_cats, expected in ((4, ["dog"]), (5, ["dog", "cat"])):
        counts = counts_of([*dogs, *[{"tags": ["cat"]}] * n_cats, *[{"tags": []}] * (5 - n_cats)])
        assert build_labels(counts).tags == expected
    with pytest.raises(RunProblem, match="no tag is named in 2 records"):
        build_labels(counts_of(dogs[:1]))
    # Of all spellings, by frequency, then name, with their commonest kind.
    tags = [
        ("B-B", "scene"), ("b b", "scene"), ("b b", "object"), ("a", "action"), ("a", "action"),
        ("a", "object"), *[("c", "object")] * 3, ("c", "scene"), ("d", "object"),
    ]  # fmt: skip
    counts = counts_of([{"tags": [tag], "kinds": {tag: kind}} for tag, kind in tags])
    assert [(label.tag, label.kind, label.count) for label in build_labels(counts)] == [
        ("c", "object", 4), ("a", "action", 3), ("b b", "scene", 3),
    ]  # fmt: skip
    counts = counts_of([{"tags": [f"tag {i}" for i in range(5100)]}] * 2)
    assert len(build_labels(counts)) == 5000


def test_captions_are_guided_by_their_own_tags_that_the_record_still_has():
    fields = {
        "tags": ["dog", "sky"], "captions": ["a red puppy", "sky"],
        "caption_tags": [["dog", "red"], ["sky"]], "generated_captions": ["a dog below the sky"],
        "main": ["sky"],
    }  # fmt: skip
    annotation = read(**fields)
    assert [(c.text, c.tags) for c in annotation.captions] == [
        ("a red puppy", ("dog",)), ("sky", ("sky",)), ("a dog below the sky", ("dog", "sky")),
    ]  # fmt: skip
    named = Caption("", ("sky", "spaceship", "puppy", "dog"))
    assert Targets(LABELS).guiding_tags(named) == ["sky", "dog"]
    assert Targets(LABELS).guiding_tags(named, in_label_order=True) == ["dog", "sky"]
    assert main_things(annotation, LABELS) == [2]
    assert main_things(msgspec.structs.replace(annotation, main=None), LABELS) == [0, 2]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": ["dog"]}, "missing_field"),
        ({"image": "x.jpg", "tags": ["dog"], "scores": {"dog": 0.9}}, "missing_field"),
        ({"image": "x.jpg", "tags": [], "captions": ["a"], "caption_tags": []}, "bad_field"),
    ],
)
def test_records_that_cannot_teach_are_rejected(fields, code):
    problem = problem_of(lambda: read_annotation(fields))
    assert problem.code == code


def records_of(folder, rows, **options):
    path = write_records(folder / "in.jsonl", rows)
    target = folder / "records.jsonl"
    return read_records(target, [str(path)], str(DATA), pytest.fail, "train", **options)


@pytest.mark.parametrize(
    ("n_photos", "fraction"), [(300, 0), (700, 0.1), (1500, 0.08), (9000, 0.02)]
)
def test_as_many_photos_are_held_out_as_thresholds_need_and_no_more(
    tmp_path, monkeypatch, n_photos, fraction
):
    rows = [{"image": f"/nowhere/{n}.jpg", "tags": ["dog"]} for n in range(n_photos)]
    rows += rows[:90]
    found = records_of(tmp_path, rows, hold_out=True)
    held, trained = (
        {found[i].image for i in np.flatnonzero(which).tolist()}
        for which in (found.held_out, ~found.held_out)
    )
    assert not held & trained
    assert len(held) / n_photos == pytest.approx(fraction, abs=0.015)
    monkeypatch.setattr("ramctl.training.annotations.MAX_HELD_OUT", 60)
    few = records_of(tmp_path, rows, hold_out=True).held_out
    assert bool(fraction) * 55 <= few.sum() <= 60


def test_features_are_the_encoder_s_of_both_views_and_unreadable_photos_are_reported(tmp_path):
    torch.manual_seed(0)
    encoder = ImageEncoder(load_preset("tiny").model.encoder, PREPROCESS.size).eval()
    rows = training_records()
    records = records_of(tmp_path, [{**rows[0], "image": "nowhere.jpg"}, *rows])
    for _ in range(2):  # the second time they are there
        kept, problems = photo_features(records, encoder, PREPROCESS, lambda n: None, flip=True)
        assert {index: why.code for index, why in problems.items()} == {0: "missing_image"}
    photo = Preprocess(PREPROCESS)(load_photo("photos/kite.jpg", DATA))
    for view, pixels in enumerate([photo, photo[..., ::-1].copy()]):
        with torch.no_grad():
            expected = encoder(torch.from_numpy(pixels)[None])[0].numpy()
        assert np.allclose(kept[4, view], expected, rtol=2e-3, atol=2e-3)


TAUGHT = Labels([
    Label("dog", synonyms=("hound",), parents=("animal",)), Label("animal"),
    Label("sit", kind="action"), Label("red", kind="attribute"),
])  # fmt: skip


def teacher(folder: Path, *records) -> TaggerScores:
    return TaggerScores.read(write_records(folder / "teacher.jsonl", records), "train")


def soft_of(scores: TaggerScores, *photos, labels=TAUGHT) -> SoftTargets:
    return SoftTargets(scores, scores.rows_of(photos), labels)


def test_names_are_labels_by_their_own_name_and_synonyms(tmp_path):
    scores = teacher(
        tmp_path,
        {"image": "a.jpg", "scores": {"hound": 0.7, "Dog": 0.4, "sit": 0.9}},
        {"image": "b.jpg", "scores": {"submarine": 0.9}},
    )
    soft = soft_of(scores, "b.jpg", "c.jpg", "a.jpg")
    assert [TAUGHT[i].tag for i in soft.known] == ["dog", "sit"]
    assert soft.of(0).tolist() == [0, 0]  # it knows both, and sees neither
    assert soft.of(1) is None
    np.testing.assert_allclose(soft.of(2), [0.7, 0.9])
    with pytest.raises(RunProblem, match="names none of the labels"):
        soft_of(scores, "a", labels=Labels.from_tags(["ship"]))


def test_records_outrank_teachers_whose_mean_outranks_absence(tmp_path):
    labels = Labels([*TAUGHT, Label("tree"), Label("puppy", parents=("dog", "animal"))])
    softs = [
        soft_of(teacher(tmp_path, {"image": "a", "scores": scores}), "a", "b", labels=labels)
        for scores in ({"dog": 0.8, "red": 0.6}, *[{"dog": 0.2}] * 3)
    ]
    targets = Targets(labels, 0.25, softs)

    def row(tags, negatives=None, number=0):
        return targets.row(number, Annotation("a", tags, (), negatives))

    rows = [row(("puppy",)), row(("dog",)), row(("puppy",), number=1), row((), ("red",))]
    # dog, animal, sit, red, tree, puppy
    expected = [
        [0.35, 0, 0, 0.6, 0, 1],
        [1, 0, 0, 0.6, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [0.35, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose([shown for shown, _ in rows], expected, rtol=1e-6)
    assert [weights.tolist() for _, weights in rows] == [
        # The ancestors of a puppy: teachers know one, no one the other.
        [4, 0, 0.25, 1, 0.25, 1],
        [1, 0, 0.25, 1, 0.25, 0.25],
        [0, 0, 0.25, 0.25, 0.25, 1],
        [4, 0, 0, 1, 0, 0],  # with verified negatives all else is unknown, but for teachers
    ]


def test_the_teacher_sees_the_student_s_crop_in_its_own_normalisation(clip):
    from transformers import CLIPModel

    preprocess = load_preset("tiny").preprocess
    teacher = ClipTeacher(clip, preprocess)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    given = teacher.photo_features((pixels - mean) / std)
    clip_mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
    clip_std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=(pixels - clip_mean) / clip_std).pooler_output
        expected = model.visual_projection(pooled)
    assert torch.allclose(given, expected, atol=1e-5)


BY_HALF = {"ShearX", "ShearY", "Rotate"}  # another interpolation than OpenCV's


@pytest.mark.shared
def test_operations_do_what_the_authors_do(shared):
    recorded = np.load(shared / "parity" / "augment_expected.npz")
    photo = Image.fromarray(recorded["input"])
    for name, operation in OPERATIONS.items():
        for sign, direction in (("pos", 1.0), ("neg", -1.0)):
            if name == "AutoContrast" or f"{name}.{sign}" not in recorded.files:
                continue
            # OpenCV's direction of shears and rotations.
            magnitude = 0.5 * direction * (-1 if name in BY_HALF else 1)
            ours = np.asarray(operation(photo, magnitude)).astype(int)
            difference = np.abs(ours - recorded[f"{name}.{sign}"])
            if name in BY_HALF:
                assert difference.mean() < 3 and (difference > 8).mean() < 0.03, name
            else:
                assert difference.max() == 0, name
    # Theirs whitens photos.
    stretched = np.asarray(OPERATIONS["AutoContrast"](photo, 0))
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_a_random_crop_has_its_area_and_any_shape_from_3_4_to_4_3_anywhere():
    x, y = np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2)  # each pixel shows where it was
    photo, random = Image.fromarray(np.stack([x, y, y], -1)), np.random.default_rng(0)
    crops = np.array([random_crop(photo, (0.25, 0.25), 32, random) for _ in range(500)], int)
    first, last = crops[:, 4, 4, :2].T, crops[:, 28, 28, :2].T
    width, height = (last - first) * 32 / 24
    assert width * height == pytest.approx(128**2, rel=0.04)
    widest, aspects = np.log(4 / 3), np.log(width / height)
    assert (aspects.min(), aspects.max()) == pytest.approx((-widest, widest), abs=0.03)
    assert (first.min(1) < 20).all() and (last.max(1) > 238).all()


@pytest.mark.parametrize(("loader", "expected"), [("official", (255, 0, 0)), ("fast", (255,) * 3)])
def test_photos_are_read_in_training_as_in_tagging(tmp_path, loader, expected):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    changes = {"size": 8, "loader": loader, "mean": (0.0,) * 3, "std": (1 / 255,) * 3}
    preprocess = dataclasses.replace(load_preset("ram-swin-b").preprocess, **changes)
    photo = TrainingPhoto(preprocess, UNCHANGED)("clear.png", tmp_path, np.random.default_rng(0))
    assert np.round(photo[:, 4, 4]).tolist() == list(expected)
