"""The shortlist: what the tag decoder is not asked about would not have been given."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ramctl.checkpoints.bundle import GRAPH, HEADROOM, Bundle, BundleWriter, resolve_model
from ramctl.device import Runtime
from ramctl.errors import RunProblem
from ramctl.inference import shortlist
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.runner import ModelPhoto
from ramctl.inference.shortlist import read_shortlist, write_headroom
from ramctl.inference.thresholds import bundle_labels
from ramctl.inference.torch_engine import TorchEngine
from ramctl.labels import Labels
from ramctl.tagging.tagger import Tagger
from tests.conftest import REPOSITORY
from tests.support import TAGS

PHOTOS = sorted((Path(__file__).parents[1] / "data" / "photos").glob("*.jpg"))
FEW = 4


def log_odds(p):
    return np.log(p / (1 - p))


@pytest.fixture
def headed(tiny_bundle, tmp_path):
    """The tiny bundle, whose decoder adds at most 1 to 10."""
    with BundleWriter(tmp_path / "headed") as writer:
        tiny = Bundle.open(tiny_bundle)
        writer.copy_files(tiny, without={HEADROOM})
        np.save(writer.path / HEADROOM, np.arange(1, 11, dtype=np.float32))
        writer.meta = tiny.meta
    return Bundle.open(tmp_path / "headed")


def test_the_labels_that_the_branch_leads_with_are_scored_as_among_all(tiny_bundle):
    bundle, rows = Bundle.open(tiny_bundle), bundle_labels(Bundle.open(tiny_bundle)).rows
    photos = np.random.default_rng(0).normal(size=(3, 3, 64, 64)).astype(np.float32)
    offsets = np.random.default_rng(1).normal(size=len(rows)).astype(np.float32) * 5
    everything = TorchEngine.open(bundle, Runtime.choose("cpu"), rows=rows)
    all_scores = everything.scores(photos)
    branch = log_odds(everything.branch_scores(photos).astype(np.float64))
    asked = np.zeros(all_scores.shape, bool)
    np.put_along_axis(asked, np.argsort(-(branch + offsets), 1)[:, :FEW], True, 1)
    graph = OnnxEngine(bundle, GRAPH, rows, 1, (offsets, FEW))
    few = TorchEngine.open(bundle, Runtime.choose("cpu"), rows=rows, shortlist=(offsets, FEW))
    for engine in (graph, few):
        np.testing.assert_allclose(engine.scores(photos), asked * all_scores, atol=1e-5)
        alone = np.concatenate([engine.scores(photos[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(alone, engine.scores(photos), atol=1e-6)


def test_headroom_is_the_most_that_the_decoder_adds_to_nearly_all_photos(tmp_path):
    random = np.random.default_rng(0)
    branch, added = random.uniform(0.2, 0.8, (1000, 3)), random.normal(size=(1000, 3))
    scores = 1 / (1 + np.exp(-(log_odds(branch) + added)))
    write_headroom(tmp_path / HEADROOM, scores, branch)
    expected = np.sort(added, 0)[[989, 990]]
    kept = np.load(tmp_path / HEADROOM)
    assert (expected[0] - 1e-5 <= kept).all() and (kept <= expected[1] + 1e-5).all()


def test_labels_far_below_their_thresholds_are_not_asked_about(headed, monkeypatch):
    labels = bundle_labels(headed)
    assert read_shortlist(headed, labels) is None  # ten are no more than a shortlist
    monkeypatch.setattr(shortlist, "SIZE", FEW)
    labels.thresholds[:] = np.linspace(0.1, 0.9, 10)
    offsets, size = read_shortlist(headed, labels)
    np.testing.assert_allclose(offsets, np.arange(1, 11) - log_odds(labels.thresholds), rtol=1e-5)
    assert size == FEW


LIES = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"


@pytest.mark.parametrize("content", [b"", b"no numbers", b"\x93NUMPY\x01\x00\x76\x00" + LIES, None])
def test_headroom_of_other_labels_is_refused(headed, monkeypatch, content):
    monkeypatch.setattr(shortlist, "SIZE", FEW)
    path = headed.path / HEADROOM
    path.unlink()
    np.save(path, np.zeros(3)) if content is None else path.write_bytes(content)
    with pytest.raises(RunProblem, match=HEADROOM):
        read_shortlist(headed, bundle_labels(headed))


def test_only_tags_alone_are_chosen_from_a_shortlist(headed, monkeypatch):
    monkeypatch.setattr(shortlist, "SIZE", FEW)

    def n_asked(**options):
        runner = Tagger.from_pretrained(headed.path, **options).runner
        scores, _ = runner.scores_of([ModelPhoto(np.zeros((64, 64, 3), np.uint8))])
        return (scores > 1e-30).sum()

    assert n_asked() == n_asked(runtime="torch") == FEW
    for options in ({"dense": True}, {"threshold": 0.1}, {"labels": TAGS[:5]}):
        assert n_asked(**options) == (5 if "labels" in options else 10)


def test_mini_gives_the_tags_that_it_gives_when_it_is_asked_about_all_labels():
    mini = Bundle.open(resolve_model("mini"))
    assert read_shortlist(mini, bundle_labels(mini)) is not None
    few, asked_all = (Tagger.from_pretrained("mini", dense=dense) for dense in (False, True))
    for photo in PHOTOS:
        assert few.tag(photo).scores == asked_all.tag(photo).scores


@pytest.mark.parametrize(
    ("runtime", "dtype"), [("onnx", "auto"), ("torch", "auto"), ("torch", "bf16")]
)
def test_tags_scores_and_salience_do_not_depend_on_what_else_is_asked_for(ramctl, runtime, dtype):
    tag = partial(ramctl, "tag", "-q", "--runtime", runtime, "--dtype", dtype, *PHOTOS)
    alone = tag().rows
    for option in ("--dense", "--embedding"):
        for before, after in zip(alone, tag(option).rows, strict=True):
            assert "salience" in before and before.items() <= after.items()


def test_of_a_long_list_the_same_words_are_given_as_when_all_are_asked_about():
    words = REPOSITORY / "ramctl" / "checkpoints" / "labels" / "ram.jsonl"
    words = [label.tag for label in Labels.read(words)]
    everything, few = (Tagger.from_pretrained(labels=words, dense=dense) for dense in (True, False))
    assert few.runner._shortlist[1] < len(words) / 8
    for all_scored, asked in zip(everything.tag(PHOTOS), few.tag(PHOTOS), strict=True):
        given = np.flatnonzero(np.array(all_scored.dense) > few.label_set.thresholds)
        assert set(asked.tags) == {words[index] for index in given}
        assert asked.scores == all_scored.scores
