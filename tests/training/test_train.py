"""`ramctl train` and `finetune` end to end, on the repository's eight photos."""

import math
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from torch import nn

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.thresholds import usual_thresholds
from ramctl.model.preset import load_preset
from ramctl.records.labels import Labels
from ramctl.training.trainer import build_optimiser, learning_rate
from tests.command import Ramctl
from tests.support import DATA, read_rows, write_records
from tests.training.conftest import settings, steps_of, training_records

# Losses of the first steps of `tiny` on the repository's photos; they change only with the model,
# the losses, the data order or the initial weights.
GOLDEN = [  # tag, caption, distill caption
    [0.577003, 5.624602, 0.829623],
    [0.76778, 5.650045, 0.807572],
    [0.577726, 5.613442, 0.765356],
    [0.533795, 5.525581, 0.835503],
]
CALIBRATED = ("precisions", "salience", "open_set", "thresholds")
CAPTIONS_ALONE = settings("training.tag_weight=0", "training.backbone_lr_factor=0")
PHOTO = DATA / "photos" / "kite.jpg"
PHOTOS = [DATA / row["image"] for row in training_records()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def calibrated(folder, parsed, tiny_options):
    """A run that is validated on as many records, of the same photos, as curves need."""
    judged = write_records(folder / "judged.jsonl", 7 * training_records())
    options = ["--out", "judged", "--val", judged, "--events", "judged.events"]
    changes = ("precision=0.6", "training.lr=0.01", "training.fewest_positives=3")
    steps = settings("training.steps=30", *changes)
    done = Ramctl(folder)("train", parsed, *options, *steps, *tiny_options)
    assert done.returncode == 0, done.messages
    return Bundle.open(folder / "judged"), done


def test_train_writes_a_complete_bundle_by_the_losses_that_it_had_before(train, parsed, command):
    changes = settings("training.batch_size=4", "training.steps=20")
    done = train(parsed, "--out", "new/x", "--events", "e.jsonl", *changes)
    assert done.stdout == b"" and "8 in, 8 out, 0 rejected" in done.messages
    assert "from scratch (--model starts from a bundle)" in done.messages
    assert re.search(r"[0-9.e-]+ s a step, at most [0-9.]+ GB of memory\n", done.messages)
    bundle, steps = Bundle.open(Path("new/x")), steps_of("e.jsonl")
    assert set(bundle.meta["files"]) == {
        "labels.jsonl", "model.safetensors", "photo.onnx", "labels.onnx", "tokenizer.json",
        "axes.safetensors", "text/table.safetensors", "text/tokenizer.json", "README.md",
    }  # fmt: skip
    assert bundle.labels.tags == ["sky", "field", "building"]
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert bundle.meta["provenance"]["commands"][0].startswith("ramctl train ")
    assert bundle.meta["provenance"]["measured"]["validation"] == "none"
    assert not Path("new/x.work").exists()

    assert {event["photos"] for event in steps} == {4} and len(steps) == 20
    assert all(step["rate_img_s"] > 0 and 0 <= step["wait_share"] <= 1 for step in steps)
    losses = [list(event["losses"].values()) for event in steps[:4]]
    assert np.allclose(losses, GOLDEN, rtol=2e-4), losses

    assert bundle.threshold == 0.5 and {label.calibration for label in bundle.labels} == {None}
    assert "0 validation photos are too few to calibrate the scores" in done.messages
    done = command("tag", PHOTO, "--model", f"{bundle.path}/", "--precision", 0.9, code=1)
    assert "is not calibrated" in done.messages


def test_scores_are_calibrated_by_validation_photos_and_measured_in_the_card(
    calibrated, folder, command
):
    bundle, done = calibrated
    assert all(name in bundle.meta for name in CALIBRATED)
    assert {label.calibration is None for label in bundle.labels} == {False}
    assert usual_thresholds(bundle, Labels.from_tags(["a"]), 0.6) == [bundle.threshold]
    highest = max(row[1] for row in bundle.meta["precisions"])
    options = ["--model", f"{bundle.path}/", "--precision"]
    given = [
        sum(len(row["tags"]) for row in command("tag", *PHOTOS, *options, precision).rows)
        for precision in (0.999 * highest, 0.51)
    ]
    assert given[0] <= given[1] and given[1] > 0

    measured = bundle.meta["provenance"]["measured"]
    assert measured["validation_labels"] == sum(label.validated for label in bundle.labels) < 3
    value = measured["validation_mAP"]
    assert f"mAP {value:.4f} over {measured['validation_labels']} labels, 56 " in done.messages
    events = read_rows(folder / "judged.events")
    assert [e["step"] for e in events if e["event"] == "validation"] == list(range(1, 30))
    facts = yaml.safe_load((bundle.path / "README.md").read_text().split("---")[1])
    assert facts["library_name"] == "ramctl"  # as the hub reads them
    (shown,) = facts["model-index"][0]["results"]
    assert shown["metrics"] == [{"type": "mAP", "value": value}]


@pytest.mark.parametrize("changes", [(), ("training.backbone_lr_factor=0",)])
def test_unreadable_photos_are_rejected_once_and_the_rest_is_trained(train, tmp_path, changes):
    rows = training_records()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    rows.insert(2, {**rows[0], "image": "photos/nowhere.jpg"})
    rows.insert(5, {**rows[0], "image": str(tmp_path / "broken.jpg")})
    path = write_records(tmp_path / "in.jsonl", rows)
    path.write_text(path.read_text() + '{"image": "a.jpg"}\n{oops\n')
    steps = settings("training.steps=3", *changes)
    done = train(path, "--out", "x", "--rejects", "rejects.jsonl", *steps, code=3)
    assert sorted((r["line"], r["code"]) for r in read_rows("rejects.jsonl")) == [
        (3, "missing_image"), (6, "unreadable_image"), (11, "missing_field"), (12, "bad_json"),
    ]  # fmt: skip
    assert "12 in, 8 out, 4 rejected" in done.messages
    nowhere = [{**rows[0], "image": f"nowhere/{n}.jpg"} for n in range(20)]
    write_records(path, nowhere)
    assert "could be read" in train(path, "--out", "y", *steps, code=1).messages
    assert not Path("y.work").exists() and not Path("y").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (settings("training.encoder=nosuch"), "nosuch: neither a file nor a timm model"),
        (settings("model.prior.classes=10"), "for the prior"),
        (["--distill", "imagenet"], "without model.prior.classes"),
        (settings("training.loss=ram-official", "training.decouple_own=true"),
         "has no decouple_own"),
        (CAPTIONS_ALONE, "it needs a tagger with these labels to start from"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_one_line_and_does_not_stand_in_the_way(
    train, parsed, arguments, message
):
    done = train(parsed, "--out", "x", *settings("training.steps=1"), *arguments, code=2)
    assert message in done.messages and done.messages.splitlines()[-1].startswith("ramctl train: ")
    assert not Path("x.work").exists()


SAVE_EACH_STEP = "from ramctl.training import train; train.SAVE_EVERY_S = 0"


def test_a_run_that_was_ended_resumes_to_the_same_weights_with_its_own_settings_alone(
    train, parsed, tiny_options, tmp_path
):
    changes = ("training.batch_size=3", "model.tag_decoder.dropout=0.1", "training.steps=9")
    arguments = [parsed, *settings(*changes, "training.frozen_stages=3")]
    train(*arguments, "--out", "whole")
    words, work = [*arguments, *tiny_options, "--out", "ended"], tmp_path / "ended.work"
    process = Ramctl(tmp_path).start("train", *words, before=SAVE_EACH_STEP)
    while process.poll() is None and not (work / "last.pt").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGTERM and b"continue with --resume" in errors
    refused = train(*arguments, "--out", "ended", code=2).messages
    assert "ended.work holds an unfinished run: --resume continues it; delete the" in refused
    resume = ["--out", "ended", "--resume"]
    other = train(*arguments, *resume, *settings("training.steps=8"), code=2).messages
    assert other.strip().endswith("ended.work differs in training.steps")
    assert "continuing after step" in train(*arguments, *resume).messages
    whole, ended = (Bundle.open(tmp_path / name).tensors() for name in ("whole", "ended"))
    assert whole.keys() == ended.keys()
    for name, value in whole.items():
        assert np.array_equal(value, ended[name]), name
    assert "ended is complete: nothing" in train(*resume).messages


def test_eight_photos_are_learnt_to_a_map_of_one_and_their_captions_by_heart(
    train, command, tmp_path
):
    rows = [{**row, "captions": row["captions"][1:], "caption_tags": row["caption_tags"][1:]}
            for row in training_records()]  # fmt: skip
    path = write_records(tmp_path / "in.jsonl", rows)
    changes = settings(
        "training.steps=120", "training.augment.flip=0", "training.label_smoothing=0.0",
        "training.lr=1e-2", "training.gamma_neg=2.0", "model.captioning.prompt=[CLS]",
    )  # fmt: skip
    train(path, "--out", "x", "--events", "log.jsonl", *changes)
    last = steps_of("log.jsonl")[-1]["losses"]
    assert last["caption"] < 0.1 and last["tag"] < 0.1
    given = command("tag", "--model", "x/", "--caption", "--dense", *PHOTOS).rows
    dense = np.array([row["dense"] for row in given])
    for index, tag in enumerate(Bundle.open(Path("x")).labels.tags):
        is_named = np.array([tag in row["tags"] for row in rows])
        assert dense[is_named, index].min() > dense[~is_named, index].max()
    # Captions are guided by the three labels alone, so that photos with the same ones look alike.
    by_heart = [
        theirs["generated_captions"] == [row["captions"][0].lower().rstrip(".")]
        for theirs, row in zip(given, rows, strict=True)
    ]
    assert sum(by_heart) >= 5


def test_finetune_keeps_what_it_knew_and_appends_new_labels(calibrated, command, tmp_path):
    before, rows = calibrated[0], training_records()[:2]
    shown = {tag for row in rows for tag in row["tags"]}
    write_records(tmp_path / "some.jsonl", rows)
    Path("more.txt").write_text("chicken\nsky\n")
    changes = ("training.steps=1", "training.distill=[]", "training.fewest_positives=1")
    options = ["--model", f"{before.path}/", "--root", DATA, "--labels", "+more.txt"]
    done = command("finetune", "some.jsonl", *options, *settings(*changes, "training.lr=1e-4"))
    assert f"trains on from {before.path}" in done.messages
    after = Bundle.open(tmp_path / "model-finetuned")
    assert after.labels.tags == [*before.labels.tags, "chicken"]
    assert list(after.labels)[:3] == list(before.labels)
    assert all(after.meta[name] == before.meta[name] for name in CALIBRATED)
    assert after.meta["provenance"]["parent"] == before.fingerprint
    old, new = (bundle.tensors(["labels.text", "labels.own"]) for bundle in (before, after))
    assert np.array_equal(new["labels.text"][:3], old["labels.text"])
    own = [tensors["labels.own"].astype(float) for tensors in (old, new)]
    others = [index for index, label in enumerate(before.labels) if label.tag not in shown]
    assert others and np.allclose(own[0][others], own[1][others], atol=1e-3)
    # What finetune sets is this run's.
    assert after.preset.training.lr == 1e-4
    assert after.preset.finetuning == before.preset.finetuning


def test_without_a_weight_on_tags_captions_alone_are_learnt(calibrated, train, parsed, command):
    before = calibrated[0]
    changes = [*settings("training.steps=2"), *CAPTIONS_ALONE]
    arguments = [parsed, "--out", "y", "--model", f"{before.path}/", *changes]
    refused = train(*arguments, *settings("model.captioning=false"), code=2).messages
    assert "and a captioning branch with weights of its own" in refused
    train(*arguments)
    after = Bundle.open(Path("y"))
    old, new = before.tensors(), after.tensors()
    changed = {name.split(".")[0] for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"captioning"} and list(after.labels) == list(before.labels)
    commands = after.meta["provenance"]["commands"]
    assert len(commands) == 2 and commands[:1] == before.meta["provenance"]["commands"]


def test_photos_that_only_a_teacher_knows_are_trained_on(train, command, parsed, tmp_path):
    scores = {"horse": 0.9, "grass": 0.6, "boat": 0.1, "zeppelin": 0.02}
    rows = [{"image": r["image"], "scores": scores} for r in training_records()]
    teacher = write_records(tmp_path / "teacher.jsonl", rows)
    unknown = {"image": "photos/unknown.jpg", "scores": scores}
    path = write_records(tmp_path / "in.jsonl", [*rows, unknown])
    options = ["--distill", f"scores:{teacher}", "--rejects", "r.jsonl"]
    done = train(path, "--out", "m", *options, *settings("training.steps=2"), code=3)
    bundle = Bundle.open(tmp_path / "m")
    assert set(bundle.labels.tags) == {"horse", "grass"}  # what it gives with more than 0.5
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert f"{teacher}: scores of 8 of 9 photos" in done.messages
    assert [(row["code"], row["line"]) for row in read_rows("r.jsonl")] == [("missing_field", 9)]
    teacher.unlink()  # the user of a model does not have its teachers' files
    options = ["--model", "m/", "--out", "n", "--root", DATA]
    command("train", parsed, *options, *settings("training.steps=1"))


def test_labels_without_evidence_are_given_only_where_they_are_listed(train, command, parsed):
    Path("labels.txt").write_text("unicorn\ntractor\nsky\n")
    changes = settings("training.fewest_positives=5", "training.steps=2")
    train(parsed, "--labels", "labels.txt", "--out", "m", *changes)
    known = {label.tag: label.validated for label in Bundle.open(Path("m")).labels}
    # Nobody names it; too few captions do; no tag of these is named more often.
    assert known == {"unicorn": False, "tractor": False, "sky": True}
    (row,) = command("tag", PHOTO, "--model", "m/", "--threshold", 0).rows
    assert row["tags"] == ["sky"]
    Path("words.txt").write_text("unicorn\n")
    (row,) = command("tag", PHOTO, "--model", "m/", "--labels", "words.txt", "--dense").rows
    assert row["tags"] == (["unicorn"] if row["dense"][0] > 0.5 else [])


OFFICIAL = [
    "training.loss=ram-official", "training.augment.operations=2", "model.captioning.pieces=bert",
]  # fmt: skip
RAM_PLUS = [
    "model.captioning=false", "model.prior=false", "model.encoder.mean_token=true",
    "model.labels.kind=descriptions", "model.labels.own_width=0", "model.labels.own_bias=false",
    "training.objective=ram-plus", "training.caption_weight=0", "training.alignment_weight=1.0",
    "training.loss=ram-official",
]  # fmt: skip
TAG2TEXT = [
    "model.labels.kind=learnt", "model.labels.projection=none", "model.labels.own_head=true",
    "model.labels.own_bias=true", "model.encoder.projection=0", "training.objective=tag2text",
    "training.distill=[]",
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "expected", "has_captions", "texts"),
    [
        (OFFICIAL, {"tag", "caption", "distill caption"}, True, "text/table.safetensors"),
        (RAM_PLUS, {"tag", "alignment", "distill clip"}, False, "text/encoder.json"),
        (TAG2TEXT, {"tag", "caption"}, True, None),
    ],
    ids=["RAM", "RAM++", "Tag2Text"],
)
def test_each_of_the_authors_models_is_trained(
    changes, expected, has_captions, texts, command, parsed, swin_options, tiny_options, clip
):
    options = swin_options
    if changes is RAM_PLUS:  # a table would stand in for the teacher's text encoder
        options = [*tiny_options[:4], "--distill", f"clip:{clip}"]
    changes = settings("training.steps=2", *changes)
    command("train", parsed, "--out", "x", "--events", "e.jsonl", *options, *changes)
    losses = steps_of("e.jsonl")[0]["losses"]
    assert set(losses) == expected and min(losses.values()) > 0
    bundle = Bundle.open(Path("x"))
    assert bundle.has("tokenizer.json") == has_captions
    kept = {name for name in bundle.meta["files"] if name.startswith("text/")}
    assert kept - {"text/tokenizer.json"} == ({texts} if texts else set())


def config_of(*overrides):
    return load_preset("tiny", [f"training.{text}" for text in overrides]).training


QUARTER = (1 + math.cos(math.pi / 4)) / 2


@pytest.mark.parametrize(
    ("changes", "total", "expected"),
    [
        # The warm-up rises in a line from a rate of its own, and takes at most a tenth of a run.
        (("lr=1e-2", "min_lr=1e-4", "warmup_lr=2e-3", "warmup_steps=20"), 1000,
         {0: 2e-3, 5: 4e-3, 20: 1e-2, 265: 1e-4 + (1e-2 - 1e-4) * QUARTER, 1000: 1e-4}),
        (("lr=1e-2", "warmup_lr=0", "warmup_steps=100"), 40,
         {0: 0.0, 2: 5e-3, 4: 1e-2}),
    ],
)  # fmt: skip
def test_the_rate_rises_in_the_warm_up_and_falls_by_a_cosine(changes, total, expected):
    config = config_of(*changes)
    found = {step: learning_rate(config, step, total, 10) for step in expected}
    assert found == pytest.approx(expected)


def test_groups_have_their_decay_and_their_share_of_the_rate():
    model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "words": nn.Embedding(3, 2)})
    model.update({"map": nn.Linear(2, 2), "frozen": nn.Linear(2, 2).requires_grad_(False)})
    config = config_of("backbone_lr_factor=0.1", "weight_decay=0.05", "no_decay=true")
    found = {
        id(parameter): (group["weight_decay"], group["scale"])
        for group in build_optimiser(model, config).param_groups
        for parameter in group["params"]
    }
    assert {name: found.get(id(p)) for name, p in model.named_parameters()} == {
        "encoder.weight": (0.05, 0.1), "encoder.bias": (0.0, 0.1), "words.weight": (0.0, 1.0),
        "map.weight": (0.05, 1.0), "map.bias": (0.0, 1.0),
        "frozen.weight": None, "frozen.bias": None,
    }  # fmt: skip
