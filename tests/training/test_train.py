"""`ramctl train` and `finetune` end to end, on the repository's eight photos."""

import json
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ramctl.checkpoints.bundle import Bundle
from ramctl.inference.thresholds import usual_thresholds
from ramctl.records.labels import Labels
from tests.command import Ramctl
from tests.conftest import REPOSITORY
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


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = (Bundle.open(path).tensors() for path in (a, b))
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert np.array_equal(value, second[name]), name


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def plain(folder, parsed, tiny_options):
    """A run of twenty steps without validation: its bundle, and what it printed."""
    options = ["--out", "new/x", "--set", "training.steps=20", "--events", "e.jsonl"]
    changes = settings("training.batch_size=4")
    done = Ramctl(folder)("train", parsed, *options, *changes, *tiny_options)
    assert done.returncode == 0, done.messages
    return Bundle.open(folder / "new" / "x"), done


@pytest.fixture(scope="module")
def calibrated(folder, parsed, tiny_options):
    """A run that is validated on as many records, of the same photos, as curves need."""
    judged = write_records(folder / "judged.jsonl", 7 * training_records())
    options = [
        "--out",
        "judged",
        "--val",
        judged,
        "--set",
        "training.steps=30",
        "--events",
        "judged.events",
    ]
    changes = settings("precision=0.6", "training.lr=0.01", "training.fewest_positives=3")
    done = Ramctl(folder)("train", parsed, *options, *changes, *tiny_options)
    assert done.returncode == 0, done.messages
    return Bundle.open(folder / "judged"), done


def test_train_writes_a_complete_bundle_and_nothing_else(plain, folder):
    bundle, done = plain
    assert done.stdout == b"" and "8 in, 8 out, 0 rejected" in done.messages
    assert set(bundle.meta["files"]) == {
        "labels.jsonl", "model.safetensors", "photo.onnx", "labels.onnx", "tokenizer.json",
        "axes.safetensors", "text/table.safetensors", "text/tokenizer.json", "README.md",
    }  # fmt: skip
    assert bundle.labels.tags == ["sky", "field", "building"]
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert bundle.meta["provenance"]["commands"][0].startswith("ramctl train ")
    assert "ramctl train" in (bundle.path / "README.md").read_text()
    assert not (folder / "new" / "x.work").exists()


def test_steps_have_the_losses_that_they_had_before_and_their_pace_is_reported(plain, folder):
    steps = steps_of(folder / "e.jsonl")
    assert {event["photos"] for event in steps} == {4}
    assert all(step["rate_img_s"] > 0 and 0 <= step["wait_share"] <= 1 for step in steps)
    losses = [list(event["losses"].values()) for event in steps[:4]]
    assert np.allclose(losses, GOLDEN, rtol=2e-4), losses
    assert re.search(r"[0-9.e-]+ s a step, at most [0-9.]+ GB of memory\n", plain[1].messages)


def test_without_photos_enough_scores_are_not_calibrated(plain, command):
    bundle, done = plain
    assert bundle.threshold == 0.5 and {label.calibration for label in bundle.labels} == {None}
    assert "0 validation photos are too few to calibrate the scores" in done.messages
    done = command("tag", PHOTO, "--model", f"{bundle.path}/", "--precision", 0.9, code=1)
    assert "is not calibrated" in done.messages


def test_scores_are_calibrated_by_validation_photos(calibrated, command):
    bundle, _ = calibrated
    assert all(name in bundle.meta for name in CALIBRATED)
    assert {label.calibration is None for label in bundle.labels} == {False}
    assert usual_thresholds(bundle, Labels.from_tags(["a"]), 0.6) == [bundle.threshold]
    highest = max(row[1] for row in bundle.meta["precisions"])
    photos = [DATA / row["image"] for row in training_records()]
    options = ["--model", f"{bundle.path}/", "--precision"]
    given = [
        sum(len(row["tags"]) for row in command("tag", *photos, *options, precision).rows)
        for precision in (0.999 * highest, 0.51)
    ]
    assert given[0] <= given[1] and given[1] > 0


def test_the_map_is_that_of_labels_with_evidence_and_stands_in_the_card(calibrated, folder):
    bundle, done = calibrated
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


def test_a_missing_and_a_broken_photo_are_rejected_once_and_the_rest_is_trained(train, tmp_path):
    rows = training_records()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    rows.insert(2, {**rows[0], "image": "photos/nowhere.jpg"})
    rows.insert(5, {**rows[0], "image": str(tmp_path / "broken.jpg")})
    path = write_records(tmp_path / "in.jsonl", rows)
    path.write_text(path.read_text() + '{"image": "a.jpg"}\n{oops\n')
    for overrides in ([], ["--set", "training.backbone_lr_factor=0.0"]):
        arguments = [
            "--out",
            "x",
            "--set",
            "training.steps=4",
            "--rejects",
            "rejects.jsonl",
            *overrides,
        ]
        done = train(path, *arguments, code=3)
        assert sorted((r["line"], r["code"]) for r in read_rows("rejects.jsonl")) == [
            (3, "missing_image"), (6, "unreadable_image"), (11, "missing_field"), (12, "bad_json"),
        ]  # fmt: skip
        assert "12 in, 8 out, 4 rejected" in done.messages


@pytest.mark.parametrize("changes", [(), ("training.backbone_lr_factor=0",)])
def test_without_a_readable_photo_nothing_is_written(train, tmp_path, changes):
    rows = [{**training_records()[0], "image": f"nowhere/{n}.jpg"} for n in range(20)]
    path = write_records(tmp_path / "in.jsonl", rows)
    done = train(path, "--out", "x", "--set", "training.steps=9", *settings(*changes), code=1)
    assert "could be read" in done.messages
    assert not Path("x.work").exists() and not Path("x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (settings("training.encoder=nosuch"), "nosuch: neither a file nor a timm model"),
        (settings("model.prior.classes=10"), "for the prior"),
        (["--distill", "imagenet"], "without model.prior.classes"),
        (["--distill", "oracle"], "imagenet, scores:FILE"),
        (settings("training.loss=ram-official", "training.decouple_own=true"),
         "has no decouple_own"),
        (CAPTIONS_ALONE, "it needs a tagger with these labels to start from"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_one_line_and_does_not_stand_in_the_way(
    train, parsed, arguments, message
):
    done = train(parsed, "--out", "x", "--set", "training.steps=1", *arguments, code=2)
    assert message in done.messages and done.messages.splitlines()[-1].startswith("ramctl train: ")
    assert not Path("x.work").exists()


SAVE_EACH_STEP = "from ramctl.training import train; train.SAVE_EVERY_S = 0"


@pytest.mark.parametrize(
    ("signum", "changes"),
    [(signal.SIGTERM, "training.frozen_stages=3"),
     (signal.SIGKILL, "training.backbone_lr_factor=0.5")],
)  # fmt: skip
def test_a_run_that_was_ended_resumes_to_the_same_weights_with_its_own_settings_alone(
    train, parsed, tiny_options, tmp_path, signum, changes
):
    small = settings("training.batch_size=3", "model.tag_decoder.dropout=0.1", changes)
    arguments = [parsed, "--set", "training.steps=9", *small]
    train(*arguments, "--out", "whole")
    words, work = [*arguments, *tiny_options, "--out", "ended"], tmp_path / "ended.work"
    process = Ramctl(tmp_path).start("train", *words, before=SAVE_EACH_STEP)
    while process.poll() is None and not (work / "last.pt").exists():
        time.sleep(0.005)
    process.send_signal(signum)
    _, errors = process.communicate()
    assert process.returncode == -signum
    assert (b"continue with --resume" in errors) == (signum == signal.SIGTERM)
    refused = train(*arguments, "--out", "ended", code=2).messages
    assert "ended.work holds an unfinished run: --resume continues it; delete the" in refused
    other = train(
        *arguments, "--out", "ended", "--resume", "--set", "training.steps=8", code=2
    ).messages
    assert other.strip().endswith("ended.work differs in training.steps")
    done = train(*arguments, "--out", "ended", "--resume")
    assert "continuing after step" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "ended")
    assert "ended is complete: nothing" in train("--out", "ended", "--resume").messages


@pytest.mark.slow
def test_eight_photos_are_learnt_to_a_map_of_one_and_their_captions_by_heart(
    train, command, tmp_path
):
    rows = [{**row, "captions": row["captions"][1:], "caption_tags": row["caption_tags"][1:]}
            for row in training_records()]  # fmt: skip
    path = write_records(tmp_path / "in.jsonl", rows)
    train(
        path, "--out", "x", "--val", path, "--set", "training.steps=150", "--events", "log.jsonl",
        *settings("training.augment.flip=0", "training.label_smoothing=0.0",
                  "training.lr=5e-3", "training.gamma_neg=2.0"),
    )  # fmt: skip
    assert Bundle.open(tmp_path / "x").meta["provenance"]["measured"]["validation_mAP"] == 1.0
    last = steps_of("log.jsonl")[-1]["losses"]
    assert last["caption"] < 0.1 and last["tag"] < 0.1


def test_captions_are_learnt_and_given_without_their_prompt(train, command, tmp_path):
    rows = training_records()
    text = "one small photo of outdoor things in grey colours from here"
    for row in rows:
        row |= {"captions": [text], "caption_tags": [[]]}
    path = write_records(tmp_path / "in.jsonl", rows)
    change = ("training.augment.flip=0", "training.label_smoothing=0.0", "training.lr=5e-3")
    train(
        path,
        "--out",
        "x",
        "--set",
        "training.steps=100",
        *settings(*change, "model.captioning.prompt=[CLS]"),
    )
    done = command("tag", "--model", "x/", "--caption", PHOTO)
    assert json.loads(done.stdout)["generated_captions"] == [text]


def test_finetune_keeps_what_it_knew_and_appends_new_labels(calibrated, command, tmp_path):
    before, rows = calibrated[0], training_records()[:2]
    shown = {tag for row in rows for tag in row["tags"]}
    write_records(tmp_path / "some.jsonl", rows)
    Path("more.txt").write_text("chicken\nsky\n")
    options = [
        "--model",
        f"{before.path}/",
        "--root",
        DATA,
        "--set",
        "training.steps=1",
        "--set",
        "training.distill=[]",
    ]
    changes = settings("training.fewest_positives=1", "training.lr=1e-4")
    command("finetune", "some.jsonl", *options, "--labels", "+more.txt", *changes)
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


def test_without_a_weight_on_tags_captions_alone_are_learnt(
    calibrated, train, parsed, command, tmp_path
):
    before = calibrated[0]
    train(
        parsed,
        "--out",
        "y",
        "--model",
        f"{before.path}/",
        "--set",
        "training.steps=2",
        *CAPTIONS_ALONE,
    )
    after = Bundle.open(tmp_path / "y")
    old, new = before.tensors(), after.tensors()
    changed = {name.split(".")[0] for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"captioning"} and list(after.labels) == list(before.labels)
    commands = after.meta["provenance"]["commands"]
    assert len(commands) == 2 and commands[:1] == before.meta["provenance"]["commands"]
    models = f"{before.path}/", "y/"
    tagged = [command("tag", "--model", model, "--dense", PHOTO).stdout for model in models]
    assert tagged[0] == tagged[1] != ""


def test_photos_that_only_a_teacher_knows_are_trained_on(train, command, tmp_path):
    scores = {"horse": 0.9, "grass": 0.6, "boat": 0.1, "zeppelin": 0.02}
    rows = [{"image": r["image"], "scores": scores} for r in training_records()]
    teacher = write_records(tmp_path / "teacher.jsonl", rows)
    unknown = {"image": "photos/unknown.jpg", "scores": scores}
    path = write_records(tmp_path / "in.jsonl", [*rows, unknown])
    options = [
        "--distill",
        f"scores:{teacher}",
        "--set",
        "training.steps=2",
        "--rejects",
        "r.jsonl",
    ]
    done = train(path, "--out", "m", *options, code=3)
    bundle = Bundle.open(tmp_path / "m")
    assert set(bundle.labels.tags) == {"horse", "grass"}  # what it gives with more than 0.5
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert f"{teacher}: scores of 8 of 9 photos" in done.messages
    assert [(row["code"], row["line"]) for row in read_rows("r.jsonl")] == [("missing_field", 9)]
    teacher.unlink()  # the user of a model does not have its teachers' files
    known = write_records(tmp_path / "known.jsonl", training_records())
    command(
        "train", known, "--model", "m/", "--out", "n", "--set", "training.steps=1", "--root", DATA
    )


def test_labels_without_evidence_are_given_only_where_they_are_listed(train, command, parsed):
    Path("labels.txt").write_text("unicorn\ntractor\nsky\n")
    rare = settings("training.fewest_positives=5")
    train(parsed, "--labels", "labels.txt", "--out", "m", "--set", "training.steps=2", *rare)
    known = {label.tag: label.validated for label in Bundle.open(Path("m")).labels}
    # Nobody names it; too few captions do; no tag of these is named more often.
    assert known == {"unicorn": False, "tractor": False, "sky": True}
    (row,) = command("tag", PHOTO, "--model", "m/", "--threshold", 0).rows
    assert row["tags"] == ["sky"]
    Path("words.txt").write_text("unicorn\n")
    (row,) = command("tag", PHOTO, "--model", "m/", "--labels", "words.txt", "--dense").rows
    assert row["tags"] == (["unicorn"] if row["dense"][0] > 0.5 else [])


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


def test_ram_plus_trains_on_clip_queries_and_aligns_photos_with_captions(
    command, parsed, tiny_options, clip
):
    options = [
        "--distill",
        f"clip:{clip}",
        "--events",
        "e.jsonl",
        "--out",
        "x",
        "--set",
        "training.steps=2",
    ]
    command("train", parsed, *tiny_options[:4], *options, *settings(*RAM_PLUS))
    losses = steps_of("e.jsonl")[0]["losses"]
    assert set(losses) == {"tag", "distill clip", "alignment"} and min(losses.values()) > 0
    bundle = Bundle.open(Path("x"))
    assert json.loads((bundle.path / "text/encoder.json").read_text())["kind"] == "clip"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["training.loss=ram-official", "training.augment.operations=2",
          "model.captioning.pieces=bert"], {"tag", "caption", "distill caption"}),
        (["model.captioning=false", "training.distill=[]"], {"tag"}),
        pytest.param(TAG2TEXT, {"tag", "caption"}, marks=pytest.mark.slow),
    ],
    ids=["the authors' options", "tags alone", "learnt queries"],
)  # fmt: skip
def test_the_switches_of_the_papers_tables(changes, expected, command, parsed, swin_options):
    options = ["--out", "x", "--set", "training.steps=2", "--events", "e.jsonl", *swin_options]
    command("train", parsed, *options, *settings(*changes))
    assert set(steps_of("e.jsonl")[0]["losses"]) == expected
    bundle = Bundle.open(Path("x"))
    assert bundle.has("tokenizer.json") == ("caption" in expected)
    assert bundle.has("text/table.safetensors") == (changes != TAG2TEXT)


def test_the_manuals_preset_of_another_backbone_trains_and_tags(command, parsed, tmp_path):
    manual = REPOSITORY / "ramctl" / "training" / "README.md"
    (text,) = re.findall(r"```toml\n(.*?)```", manual.read_text("utf-8"), re.DOTALL)
    (tmp_path / "mobilenet.toml").write_text(text)
    small = settings("training.encoder=", "preprocess.size=64", "training.batch_size=4")
    options = ["--root", DATA, "--out", "x", "--set", "training.steps=1", *small]
    command("train", parsed, "--preset", "mobilenet.toml", *options)
    done = command("tag", "--model", "x/", "--threshold", 0, DATA / "photos" / "horses.jpg")
    assert json.loads(done.stdout)["tags"]
