"""`generate --evidence`: chances of what captions leave out, by what another tagger says."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.linear_model import Ridge

from ramctl.data_engine.heads import FOLDS, fold_of
from ramctl.data_engine.label_probabilities import (
    MAX_LABELS,
    MIN_OF_AVERAGE,
    MIN_PROBABILITY,
    RIDGE,
    Evidence,
    LabelProbabilities,
)
from ramctl.decide.fitting import PIVOT
from ramctl.decide.fitting import RIDGE as PENALTY
from ramctl.errors import RunProblem, UsageProblem
from ramctl.labels import Label, LabelSystem
from ramctl.records.record import Record
from tests.support import lines

CATS = Label("cat", synonyms=("kitty",), parents=("pet",))
SYSTEM = LabelSystem([CATS, Label("dog"), Label("pet"), Label("yak")])
CAT = 0
N = 400
NAMES = [f"{number:04d}.jpg" for number in range(N)]
BASE = Path("x")


@pytest.fixture(scope="module")
def world():
    """What photos show (N, 2), the tags of a caption that leaves out half, a tagger's scores."""
    random = np.random.default_rng(0)
    is_cat = random.random(N) < 0.4
    shown = np.stack([is_cat, ~is_cat & (random.random(N) < 0.5)], 1)
    named = shown & (random.random((N, 2)) < 0.5)
    noise = random.normal(0, 1.2, (N, 3))
    scores = expit(np.concatenate([6 * shown - 4, np.zeros((N, 1))], 1) + noise)
    return shown, named, scores


def record(name, tags=(), **fields):
    fields = {"image": name, "tags": list(tags), "sources": {t: ["parsed"] for t in tags}} | fields
    return Record(fields, base=BASE)


def records_of(named):
    words = np.array(["cat", "dog"])
    return [record(name, words[row].tolist()) for name, row in zip(NAMES, named, strict=True)]


def written(path: Path, scores, names=("feline", "canine", "noise")) -> Evidence:
    rows = [
        {"image": f"elsewhere/{name}", "scores": dict(zip(names, row, strict=True))}
        for name, row in zip(NAMES, np.round(scores, 4).tolist(), strict=True)
    ]
    path.write_bytes(lines(rows))
    return Evidence(path)


def chances_of(chances: LabelProbabilities, number: int, **fields) -> dict[str, float]:
    return chances.by_tag(NAMES[number], {"tags": [], **fields})


def test_chances_are_those_of_ridge_regression_and_a_logistic_of_other_libraries(world, tmp_path):
    _, named, scores = world
    evidence = written(tmp_path / "t.jsonl", scores)
    chances = LabelProbabilities([evidence], SYSTEM, records_of(named))
    inputs = logit(np.clip(np.round(scores, 4), 1e-6, 1 - 1e-6))
    fold = np.array([fold_of(name) for name in NAMES])
    said = np.zeros((N, 2))
    for own in range(FOLDS):
        train = fold != own
        spread = inputs[train].std(0)
        ridge = Ridge(alpha=RIDGE * train.sum()).fit(inputs[train] / spread, named[train])
        said[~train] = ridge.predict(inputs[~train] / spread)
    x = logit(np.clip(said, named.mean(0) * MIN_OF_AVERAGE, 0.99))

    def log_odds_of(parameters):
        shared, own = parameters[:2], parameters[2:].reshape(2, 2)  # offset and slope of each
        offsets, slopes = (shared + own).T
        return slopes * (x - PIVOT) + offsets

    def cost(parameters):
        log_odds = log_odds_of(parameters)
        likely = np.where(named, log_odds, 0) - np.logaddexp(0, log_odds)
        return -likely.sum() + (PENALTY * parameters[2:].reshape(2, 2) ** 2).sum() / 2

    expected = expit(log_odds_of(minimize(cost, [0, 1, 0, 0, 0, 0], tol=1e-9).x))
    for number in range(0, N, 7):
        got = chances_of(chances, number)
        for column, tag in enumerate(("cat", "dog")):
            if expected[number, column] > MIN_PROBABILITY + 0.01:
                assert got[tag] == pytest.approx(expected[number, column], abs=0.01)


def test_what_captions_left_out_has_greater_chances_than_what_is_not_there(world, tmp_path):
    shown, named, scores = world
    chances = LabelProbabilities([written(tmp_path / "t.jsonl", scores)], SYSTEM, records_of(named))
    got = np.array([chances_of(chances, number).get("cat", 0) for number in range(N)])
    left_out, absent = ~named[:, CAT] & shown[:, CAT], ~shown[:, CAT]
    assert np.mean(got[left_out, None] > got[absent]) > 0.95
    assert got.mean() == pytest.approx(named[:, CAT].mean(), abs=0.02)  # calibrated


def test_only_what_the_tagger_has_seen_has_chances(world, tmp_path):
    _, named, scores = world
    evidence = written(tmp_path / "t.jsonl", scores)
    rows = evidence.path.read_bytes().splitlines(keepends=True)
    evidence.path.write_bytes(b"".join(rows[:300]))
    chances = LabelProbabilities([evidence], SYSTEM, records_of(named))
    assert chances_of(chances, 299)
    assert chances_of(chances, 300) == {}


def test_photos_that_nobody_tagged_and_guesses_teach_nothing(world, tmp_path):
    """They are not taken for photos without cats; but they get chances."""
    _, named, scores = world
    evidence = written(tmp_path / "t.jsonl", scores)
    some = records_of(named)[:250]
    alone = LabelProbabilities([evidence], SYSTEM, some)
    untagged = [Record({"image": name}, base=BASE) for name in NAMES[250:300]]
    tagger = [
        Record({"image": n, "tags": ["cat"], "scores": {"cat": 0.9}}, base=BASE)
        for n in NAMES[300:350]
    ]
    broken = [Record({"tags": ["cat"]})]
    both = LabelProbabilities([evidence], SYSTEM, [*some, *untagged, *tagger, *broken])
    for number in range(0, 250, 10):
        assert chances_of(both, number) == chances_of(alone, number)
    assert all(any(chances_of(both, n) for n in range(s, s + 50)) for s in (250, 300))
    by_model = {"pet": ["generated-tag"]}
    guessing = [
        record(name, [*was["tags"], "pet"], sources=was["sources"] | by_model)
        for name, was in zip(NAMES, (one.fields for one in some), strict=False)
    ]
    assert chances_of(LabelProbabilities([evidence], SYSTEM, guessing), 5) == chances_of(alone, 5)


def test_the_tagger_s_own_score_counts_where_it_is_larger_and_the_map_says_what_it_is_of(
    world, tmp_path
):
    _, named, scores = world
    path = tmp_path / "t.jsonl"
    (tmp_path / "map.tsv").write_text("yak\tnoise|beast\n")
    heads = LabelProbabilities([written(path, scores)], SYSTEM, records_of(named))
    own = LabelProbabilities(
        [written(path, scores, ("kitty", "canine", "noise"))], SYSTEM, records_of(named)
    )
    mapped = Evidence.parse(f"{path},map={tmp_path}/map.tsv")
    yaks = LabelProbabilities([mapped], SYSTEM, records_of(named))
    for number in range(0, N, 11):
        own_score = round(float(scores[number, 0]), 4)
        head = chances_of(heads, number).get("cat", 0)
        best = max(head, own_score if own_score >= MIN_PROBABILITY else 0)
        assert chances_of(own, number).get("cat", 0) == pytest.approx(best, abs=1e-4)
        assert "yak" not in chances_of(own, number)
        yak = round(float(scores[number, 2]), 4)
        assert chances_of(yaks, number).get("yak", 0) == pytest.approx(
            yak if yak >= MIN_PROBABILITY else 0
        )
    several = LabelProbabilities([Evidence(path), mapped], SYSTEM, records_of(named))
    assert chances_of(several, 11) == chances_of(yaks, 11)  # the larger one of each


@pytest.mark.parametrize("n_captions", [1, 2])
def test_a_source_of_captions_is_as_reliable_as_what_it_says_is_there(n_captions, tmp_path):
    random, words, names = np.random.default_rng(1), np.array(["cat", "dog"]), range(12000)
    shown = random.random((12000, 2)) < 0.3
    captions = shown & (random.random((n_captions, 12000, 2)) < 0.4)
    wrong = (0.02, 0.2) if n_captions > 1 else (0.1, 0.1)  # one alone cannot tell labels apart
    said = random.random((12000, 2)) < np.where(shown, 0.5, wrong)
    rows = [{"image": str(n), "tags": words[said[n]].tolist()} for n in names]
    (tmp_path / "t.jsonl").write_bytes(lines(rows))
    told = [[words[one[n]].tolist() for one in captions] for n in names]
    records = [record(str(n), sum(told[n], []), caption_tags=told[n]) for n in names]  # noqa: RUF017
    chances = LabelProbabilities([Evidence(tmp_path / "t.jsonl")], SYSTEM, records)
    alone = said & ~captions.any(0)
    right = (alone & shown).sum(0) / alone.sum(0)
    photos = [(str(n), records[n].fields) for n in alone.argmax(0)]
    got = [chances.by_tag(*photo)[word] for photo, word in zip(photos, words, strict=True)]
    assert got == pytest.approx(right, abs=0.1)


@pytest.mark.parametrize("form", ["tags alone", "logits"])
def test_taggers_without_probabilities_are_heard_too(form, world, tmp_path):
    shown, named, scores = world
    evidence = written(tmp_path / "t.jsonl", logit(scores), ("cat", "dog", "noise"))
    if form == "tags alone":
        words = np.array(["feline", "canine", "noise"])
        given = zip(NAMES, scores > 0.5, strict=True)
        rows = [{"image": name, "tags": words[row].tolist()} for name, row in given]
        evidence.path.write_bytes(lines(rows))
    chances = LabelProbabilities([evidence], SYSTEM, records_of(named))
    got = np.array([chances_of(chances, number).get("cat", 0) for number in range(N)])
    assert got.max() < 1  # no logit is taken for a chance
    assert np.mean(got[shown[:, CAT], None] > got[~shown[:, CAT]]) > 0.75


def test_chances_are_of_tags_that_the_record_does_not_have(world, tmp_path):
    _, named, scores = world
    evidence = written(tmp_path / "t.jsonl", scores, ("cat", "dog", "pet"))
    chances = LabelProbabilities([evidence], SYSTEM, records_of(named))
    number = int(np.argmax(scores[:, :2].min(1)))
    every = chances_of(chances, number)
    assert {"cat", "dog"} <= every.keys()
    assert list(every.values()) == sorted(every.values(), reverse=True)
    removed = [{"tag": "dog", "reason": "decision"}]
    left = chances_of(chances, number, tags=["dog"])
    assert left == {tag: chance for tag, chance in every.items() if tag != "dog"}
    # Nor of what follows from its tags, nor of what was removed from it or is denied.
    for barred in ({"removed": removed}, {"negatives": ["dog"]}, {"refused": ["dog"]}):
        assert chances_of(chances, number, tags=["kitty"], **barred) == {}


def test_a_record_has_the_most_likely_chances_alone(tmp_path):
    system = LabelSystem.from_tags([f"tag {number}" for number in range(100)] + ["cat"])
    scores = np.linspace(0.06, 0.9, 100)
    path = tmp_path / "t.jsonl"
    given = dict(zip(system.tags, scores.tolist(), strict=False))
    path.write_bytes(lines([{"image": name, "scores": given} for name in NAMES]))
    chances = LabelProbabilities(
        [Evidence(path)], system, [record(name, ["cat"]) for name in NAMES]
    )
    assert list(chances_of(chances, 0, tags=["cat"])) == system.tags[99 : 99 - MAX_LABELS : -1]


def test_a_tagger_of_other_photos_and_other_forms_are_refused(tmp_path):
    evidence = written(tmp_path / "t.jsonl", np.full((N, 3), 0.5))
    with pytest.raises(RunProblem, match=r"t\.jsonl: too few photos in it have tags to learn from"):
        LabelProbabilities([evidence], SYSTEM, [record("other.jpg", ["cat"])])
    for text in ("", "t,map=", "t,weight=2"):
        with pytest.raises(UsageProblem, match=r"expected FILE\[,map=FILE\]"):
            Evidence.parse(text)


@pytest.fixture
def generate(command, engine_bundle, photo_records, tmp_path):
    rows = [
        {"image": row["image"], "scores": {"steed": 0.9, "sky": 0.3 + 0.05 * number}}
        for number, row in enumerate(photo_records)
    ]
    (tmp_path / "t.jsonl").write_bytes(lines(rows))
    for row in photo_records:
        row["tags"] = ["field"]
    (tmp_path / "in.jsonl").write_bytes(lines(photo_records))
    start = ("generate", "--model", engine_bundle, "--captions", 0, "--threshold", 0.45)
    return partial(command, *start, "--evidence", "t.jsonl")


def test_records_get_chances_and_no_tags_of_the_model(generate, photo_records):
    done = generate("in.jsonl")
    assert all(row["tags"] == ["field"] for row in done.rows)
    for number, row in enumerate(done.rows):
        assert row["chances"]["sky"] == pytest.approx(0.3 + 0.05 * number)
        assert row["mine"] == photo_records[number]["mine"]
    assert b"1.00 before, 1.00 after" in done.stderr
    assert b" chances\n" in done.stderr


def test_a_stopped_run_goes_on_and_refuses_other_evidence(generate, tmp_path):
    whole = generate("in.jsonl").stdout
    assert generate("-b", 3, stdin=(tmp_path / "in.jsonl").read_bytes()).stdout == whole
    options = ["in.jsonl", "-o", "out.jsonl", "-b", 4]
    generate(*options, "--max-time", "0s", code=4)
    generate(*options, "--resume")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    other = generate(*options, "--captions", 1, "--resume", code=1)
    assert b"made with another captions" in other.stderr
    told = (tmp_path / "t.jsonl").read_bytes()
    (tmp_path / "t.jsonl").write_bytes(told.replace(b"0.9", b"0.8"))
    assert b"another evidence" in generate(*options, "--resume", code=1).stderr
    (tmp_path / "t.jsonl").write_bytes(told)
    rows = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "in.jsonl").write_bytes(rows.replace(b'["field"]', b'["sky"]', 1))
    assert b"another input" in generate(*options, "--resume", code=1).stderr


def test_what_does_not_go_together_is_wrong_usage(generate):
    assert b"not with --shard" in generate("in.jsonl", "--shard", "1/2", code=2).stderr
    assert b"no such file" in generate("in.jsonl", "--evidence", "no", code=2).stderr


def test_a_photo_that_cannot_be_read_is_a_reject(generate, photo_records, tmp_path):
    rows = [*photo_records[:5], {"tags": []}, {"image": "none.jpg", "tags": []}, photo_records[5]]
    done = generate("--rejects", "r.jsonl", stdin=lines(rows), code=3)
    assert [bool(row["chances"]) for row in done.rows] == [True] * 6
    codes = [json.loads(line)["code"] for line in (tmp_path / "r.jsonl").open()]
    assert codes == ["missing_field", "missing_image"]


def test_chances_pass_through_what_does_not_make_them(command, engine_bundle, photo_records):
    for row in photo_records:
        row["chances"] = {"train": 0.25, "yak": 1}
    for words in (["generate", "--captions", 0], ["clean", "--min-regions", 2]):
        done = command(*words, "--model", engine_bundle, stdin=lines(photo_records))
        assert [row["chances"] for row in done.rows] == [{"train": 0.25, "yak": 1}] * len(done.rows)
