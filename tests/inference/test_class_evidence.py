"""The evidence of the backbone's classes: what it raises, in torch and in the graphs alike."""

import numpy as np
import pytest

from ramctl import Tagger
from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.class_evidence import ClassEvidence
from ramctl.inference.runner import ModelRunner, RunnerOptions
from ramctl.inference.vocabulary import label_rows
from ramctl.records.labels import Label, Labels

FEW = 5
WEIGHTS = (0.5, 1.0, -1.0)
META = {"architecture": {"prior": {"temperature": 2.0}}, "class_evidence": WEIGHTS}


def test_a_label_is_right_if_its_curve_or_its_classes_say_so():
    labels = Labels([Label("fish", classes=(0, 1)), Label("sky"), Label("dog", classes=(2,))])
    evidence = ClassEvidence.from_bundle(Bundle("x", META), labels)
    flat = np.sqrt(np.array([[0.6, 0.36, 0.04], [0.0, 0.0, 1.0]]))
    masses = evidence.masses(flat / flat.sum(1, keepdims=True))
    np.testing.assert_allclose(masses, [[0.96, 0.04], [0, 1]], atol=1e-9)
    before = np.array([[-2.0, 1.0, -2.0], [-2.0, 1.0, -np.inf]])
    after = evidence(before, np.array([[0.96, 0.04], [0.0, 0.9]]))
    by_curve, by_classes = 1 / (1 + np.exp(2 - 0.5)), 0.96 / 0.04 / (0.96 / 0.04 + np.e)
    fish = 1 - (1 - by_curve) * (1 - by_classes)
    np.testing.assert_allclose(1 / (1 + np.exp(-after[0, 0])), fish)
    np.testing.assert_allclose(1 / (1 + np.exp(-after[1, 2])), 9 / (9 + np.e))  # by classes alone
    after[0, 0], after[1, 2] = before[0, 0], before[1, 2]
    np.testing.assert_array_equal(after, before)


def test_torch_and_the_graphs_see_the_same_evidence_and_rank_by_it(ranked, monkeypatch):
    monkeypatch.setattr("ramctl.inference.onnx_engine.MIN_LISTED", 2)
    bundle = Bundle(ranked.path, ranked.meta | {"class_evidence": (0.5, 3.0, 2.0)})
    known = label_rows(bundle)
    rows = (x.changed(headroom=0.0, classes=(n,) if n < FEW else ()) for n, x in enumerate(known))
    labels = Labels.with_rows(rows, known.rows)
    photos = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    runners = [ModelRunner(bundle, RunnerOptions(), engine, labels=labels)
               for engine in ("onnx", "torch")]  # fmt: skip
    inputs = runners[0].preprocess.normalise(photos)
    engines = [runners[0]._onnx_engine, runners[1].engine]
    ours, torchs = (runner._score(engine, engine.encode(inputs))[0]
                    for runner, engine in zip(runners, engines, strict=True))  # fmt: skip
    assert (runners[0].evidence.masses(engines[1].classes(engines[1].encode(inputs))) > 0.05).all()
    np.testing.assert_allclose(ours[:, :FEW], torchs[:, :FEW], atol=1e-5)
    assert (ours[:, FEW:] < 1e-30).any()  # neither likely nor raised


# What the class head knows of public photos, and the tags that photos of this kind lacked.
KINDS = {
    "n01443537": "fish", "n01843383": "bird", "n01644373": "animal", "n01704323": "animal",
    "n02823750": "tableware", "n03791053": "vehicle",
}  # fmt: skip


@pytest.mark.shared
def test_photos_of_things_that_the_class_head_knows_are_called_by_their_kind(shared):
    archive = shared / "data" / "eval" / "imagenet1k_sample-0000.tar"
    names = [f"{archive}#{name}.jpg" for name in KINDS]
    results = Tagger.from_pretrained("mini").tag(names)
    found = {name: result.tags for name, result in zip(KINDS, results, strict=True)}
    assert not [name for name, kind in KINDS.items() if kind not in found[name]], found
