"""Records to batches: their order, targets, photos kept back, features."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramctl.errors import RunProblem
from ramctl.model.caption_tokenizer import CaptionTokenizer, load_tokenizer, train_tokenizer
from ramctl.model.encoder import ImageEncoder
from ramctl.model.preprocess import Preprocess
from ramctl.model.preset import load_preset
from ramctl.photos.decoding import load_photo
from ramctl.records.labels import Label, Labels
from ramctl.records.record import kinds_of
from ramctl.training.annotations import TagCounts, build_labels, read_annotation, read_records
from ramctl.training.augmentation import UNCHANGED, TrainingPhoto
from ramctl.training.data import (
    ABSENT,
    DENIED,
    PRESENT,
    UNKNOWN,
    Sampler,
    Targets,
    TrainingSet,
    photo_features,
)
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
    counts = counts_of([{"tags": [f"tag {i}" for i in range(5100)]}] * 2)
    assert len(build_labels(counts)) == 5000
    with pytest.raises(RunProblem, match="no tag is named in 2 records"):
        build_labels(counts_of(dogs[:1]))


def test_labels_are_built_of_all_spellings_by_frequency_then_name_with_their_commonest_kind():
    tags = [
        ("B-B", "scene"), ("b b", "scene"), ("b b", "object"), ("a", "action"), ("a", "action"),
        ("a", "object"), *[("c", "object")] * 3, ("c", "scene"), ("d", "object"),
    ]  # fmt: skip
    counts = counts_of([{"tags": [tag], "kinds": {tag: kind}} for tag, kind in tags])
    assert [(label.tag, label.kind, label.count) for label in build_labels(counts)] == [
        ("c", "object", 4), ("a", "action", 3), ("b b", "scene", 3),
    ]  # fmt: skip


def test_captions_are_guided_by_their_own_tags_that_the_record_still_has():
    fields = {
        "tags": ["dog", "sky"], "captions": ["a red puppy", "sky"],
        "caption_tags": [["dog", "red"], ["sky"]], "generated_captions": ["a dog below the sky"],
    }  # fmt: skip
    annotation = read(**fields)
    assert [(c.text, c.tags) for c in annotation.captions] == [
        ("a red puppy", ("dog",)), ("sky", ("sky",)), ("a dog below the sky", ("dog", "sky")),
    ]  # fmt: skip
    assert Targets(LABELS).guiding_tags(annotation.captions[2]) == ["dog", "sky"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tags": ["dog"]}, "missing_field"),
        ({"image": "x.jpg"}, "missing_field"),
        ({"image": "x.jpg", "tags": ["dog"], "scores": {"dog": 0.9}}, "missing_field"),
        ({"image": "x.jpg", "tags": [], "captions": ["a"], "caption_tags": []}, "bad_field"),
    ],
)
def test_records_that_cannot_teach_are_rejected(fields, code):
    problem = problem_of(lambda: read_annotation(fields).require_tags())
    assert problem.code == code


def records_of(folder, rows, rejects=None, **options):
    on_reject = (lambda r: pytest.fail(str(r))) if rejects is None else rejects.append
    path = folder / "in.jsonl"
    path.write_bytes(rows) if isinstance(rows, bytes) else write_records(path, rows)
    target = folder / "records.jsonl"
    return read_records(target, [str(path)], str(DATA), on_reject, "train", **options)


def test_records_are_read_by_number_with_their_lines_and_bad_ones_rejected(tmp_path):
    lines = [
        '{"image": "a", "tags": []}', "", "{bad", '{"image": "b", "tags": 5}',
        '{"image": "ü", "tags": ["x"], "captions": ["an x"], "main": ["x"]}',
    ]  # fmt: skip
    rejects = []
    found = records_of(tmp_path, "\n".join(lines).encode(), rejects)
    assert [(r.line, r.code) for r in rejects] == [(3, "bad_json"), (4, "bad_field")]
    assert (found.n_lines, len(found)) == (4, 2)
    notes = [found[place] for place in range(2)]
    assert [(n.line, n.image, n.main) for n in notes] == [(1, "a", None), (5, "ü", ("x",))]
    assert [caption.text for caption in notes[1].captions] == ["an x"]
    assert found.base(notes[0]) == DATA


@pytest.mark.parametrize(
    ("n_photos", "fraction"), [(300, 0), (700, 0.1), (1500, 0.08), (3000, 0.04), (9000, 0.02)]
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


@pytest.mark.parametrize(
    ("order", "expected"), [("given", "ball | dog | grass"), ("labels", "grass | dog | ball")]
)
def test_a_captions_tags_are_fed_as_they_are_named_or_as_the_authors_labels_stand(
    order, expected, tmp_path
):
    preset = load_preset("tiny", [f"model.captioning.tag_order={order}"])
    train_tokenizer(["ball dog grass |"] * 3, 60).save(str(tmp_path / "t.json"))
    tokenizer = CaptionTokenizer(load_tokenizer(tmp_path / "t.json"), preset.model.captioning)
    names = ["ball", "dog", "grass"]
    record = {
        "image": "photos/kite.jpg", "tags": names,
        "captions": ["a ball, a dog on grass"], "caption_tags": [[*names, "ball"]],
    }  # fmt: skip
    records, targets = records_of(tmp_path, [record]), Targets(Labels.from_tags(names[::-1]))
    photo = TrainingPhoto(preset.preprocess, UNCHANGED)
    data = TrainingSet(records, np.array([0]), targets, photo, tokenizer=tokenizer)
    pieces = data[0, data.ids].captions.tag_ids.numpy()
    assert tokenizer.tokenizer.decode(pieces[0].tolist()) == expected
