"""`ramctl train` and `finetune` end to end, on the repository's eight photos."""

import gzip
import json
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from ramctl.checkpoints.bundle import Bundle
from ramctl.training import start as initial
from tests.command import Ramctl
from tests.conftest import REPOSITORY
from tests.support import DATA, lines, read_rows, write_records
from tests.training.conftest import settings, steps_of, training_records


def assert_same_weights(a: Path, b: Path) -> None:
    one, two = (Bundle.open(path).tensors() for path in (a, b))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert np.array_equal(value, two[name]), name


def test_train_writes_a_complete_bundle_into_a_folder_that_it_makes(train, parsed, tmp_path):
    done = train(parsed, "--out", "some/new/x", "--steps", 3)
    assert done.stdout == b""
    bundle = Bundle.open(tmp_path / "some" / "new" / "x")
    assert set(bundle.meta["files"]) == {
        "labels.jsonl", "model.safetensors", "photo.onnx", "labels.onnx", "tokenizer.json",
        "axes.safetensors", "text/table.safetensors", "text/tokenizer.json",
        "README.md",
    }  # fmt: skip
    assert bundle.labels.tags == ["sky", "field", "building"]
    assert bundle.meta["provenance"]["data"]["records_trained_on"] == 8
    assert bundle.meta["provenance"]["commands"][0].startswith("ramctl train ")
    card = (bundle.path / "README.md").read_text()
    assert "ramctl train" in card and "no counting" in card
    assert not (tmp_path / "some" / "new" / "x.work").exists()
    assert "8 in, 8 out, 0 rejected" in done.messages


@pytest.mark.parametrize(
    ("signum", "backbone"),
    [
        (signal.SIGTERM, ("training.backbone_lr_factor=0.5",)),
        (signal.SIGKILL, ("training.backbone_lr_factor=0.0",)),
        (signal.SIGKILL, ("training.backbone_lr_factor=0.5", "training.frozen_stages=3")),
        pytest.param(signal.SIGKILL, ("training.precision=fp16",), marks=pytest.mark.slow),
    ],
    ids=["whole model", "kept features", "kept features of frozen stages", "fp16"],
)
def test_a_run_that_was_ended_resumes_to_the_same_weights_bit_for_bit(
    train, command, parsed, tiny_options, tmp_path, signum, backbone
):
    arguments = [
        parsed, "--steps", 9,
        *settings("training.batch_size=3", "training.sampled_labels=3",
                  "model.tag_decoder.dropout=0.1", *backbone),
    ]  # fmt: skip
    train(*arguments, "--out", "whole")
    process = start([*arguments, *tiny_options, "--out", "ended"], tmp_path / "ended.work")
    process.send_signal(signum)
    _, errors = process.communicate()
    assert process.returncode == -signum
    assert (b"continue with --resume" in errors) == (signum == signal.SIGTERM)
    done = command("train", *arguments, *tiny_options, "--out", "ended", "--resume")
    assert "continuing after step" in done.messages
    assert_same_weights(tmp_path / "whole", tmp_path / "ended")


SAVE_EACH_STEP = "from ramctl.training import train; train.SAVE_EVERY_S = 0"


def start(arguments: list[object], work: Path):
    """Start the real command and wait until it has saved its state."""
    process = Ramctl(work.parent).start("train", *arguments, before=SAVE_EACH_STEP)
    while process.poll() is None and not (work / "last.pt").exists():
        time.sleep(0.005)
    return process


def test_a_missing_and_a_broken_photo_are_rejected_once_and_the_rest_is_trained(train, tmp_path):
    rows = training_records()
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    rows.insert(2, {**rows[0], "image": "photos/nowhere.jpg"})
    rows.insert(5, {**rows[0], "image": str(tmp_path / "broken.jpg")})
    path = write_records(tmp_path / "in.jsonl", rows)
    path.write_text(path.read_text() + '{"image": "a.jpg"}\n{oops\n')
    for overrides in ([], ["--set", "training.backbone_lr_factor=0.0"]):
        arguments = ["--out", "x", "--steps", 4, "--rejects", "rejects.jsonl", *overrides]
        done = train(path, *arguments, code=3)
        assert sorted((r["line"], r["code"]) for r in read_rows("rejects.jsonl")) == [
            (3, "missing_image"), (6, "unreadable_image"), (11, "missing_field"), (12, "bad_json"),
        ]  # fmt: skip
        assert "12 in, 8 out, 4 rejected" in done.messages


def test_a_hundred_records_without_a_photo_ask_for_the_root(train, tmp_path):
    rows = [{**training_records()[0], "image": f"nowhere/{n}.jpg"} for n in range(120)]
    done = train(write_records(tmp_path / "in.jsonl", rows), "--out", "x", "--steps", 1, code=1)
    assert "--root" in done.messages and "Traceback" not in done.messages


def test_finetune_keeps_what_train_set_and_its_own_settings_are_of_one_run(
    train, parsed, command, tmp_path
):
    frozen, fast = settings("training.backbone_lr_factor=0.0"), settings("training.lr=0.5")
    train(parsed, "--out", "x", "--steps", 1, *frozen)
    command("finetune", parsed, "--root", DATA, "--model", "x/", "--steps", 1, *fast)
    preset = Bundle.open(tmp_path / "model-finetuned").preset
    assert (preset.training.backbone_lr_factor, preset.training.lr) == (0.0, 0.5)
    assert preset.finetuning == Bundle.open(tmp_path / "x").preset.finetuning
    assert preset.finetuning.lr != 0.5 and preset.finetuning.steps != 1


def judged_photos(folder: Path) -> Path:
    """As many records as curves need, of the same eight photos."""
    return write_records(folder / "judged.jsonl", 7 * training_records())


CALIBRATED = ("precisions", "salience", "open_set", "thresholds")


def test_scores_are_calibrated_by_validation_photos(train, command, parsed, tmp_path):
    train(parsed, "--out", "x", "--val", judged_photos(tmp_path), "--steps", 30,
          *settings("precision=0.6", "training.lr=0.01"))  # fmt: skip
    bundle = Bundle.open(tmp_path / "x")
    assert all(name in bundle.meta for name in CALIBRATED)
    assert {label.calibration is None for label in bundle.labels} == {False}
    assert {label.threshold for label in bundle.labels} == {None}
    assert bundle.threshold == bundle.threshold_for(0.6)
    highest = max(row[1] for row in bundle.meta["precisions"])
    photos = [DATA / row["image"] for row in training_records()]
    options = ["--model", "x/", "--precision"]
    given = [
        sum(len(row["tags"]) for row in command("tag", *photos, *options, precision).rows)
        for precision in (0.999 * highest, 0.51)
    ]
    assert given[0] <= given[1] and given[1] > 0


def test_without_photos_enough_scores_are_not_calibrated(train, command, parsed, tmp_path):
    done = train(parsed, "--out", "x", "--steps", 1)
    bundle = Bundle.open(tmp_path / "x")
    assert bundle.threshold == 0.5 and {label.calibration for label in bundle.labels} == {None}
    assert "0 validation photos are too few to calibrate the scores: the threshold is 0.5" in (
        done.messages
    )
    photo = DATA / "photos" / "kite.jpg"
    done = command("tag", photo, "--model", "x/", "--precision", 0.9, code=1)
    assert "is not calibrated" in done.messages


def test_what_a_few_photos_do_not_show_is_not_forgotten(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--val", judged_photos(tmp_path), "--steps", 10)
    before = Bundle.open(tmp_path / "x")
    rows = read_rows(parsed)[:2]
    shown = {tag for row in rows for tag in row["tags"]}
    write_records(tmp_path / "some.jsonl", rows)
    words = ["--model", "x/", "some.jsonl", "--root", DATA, "--steps", 1, "--distill", "none"]
    command("finetune", *words, *settings("training.fewest_positives=1", "training.lr=1e-4"))
    after = Bundle.open(tmp_path / "model-finetuned")
    assert after.labels == before.labels
    assert all(after.meta[name] == before.meta[name] for name in CALIBRATED)
    own = [bundle.tensors(["labels.own"])["labels.own"].astype(float) for bundle in (before, after)]
    others = [index for index, label in enumerate(before.labels) if label.tag not in shown]
    assert others and np.allclose(own[0][others], own[1][others], atol=1e-3)
    photos = sorted((DATA / "photos").glob("*.jpg"))
    for row, was in zip(
        *(command("tag", "--model", m, *photos).rows for m in ("model-finetuned/", "x/")),
        strict=True,
    ):
        assert len(row["tags"]) <= len(was["tags"]) + 2


def test_finetune_keeps_labels_and_appends_new_ones(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--steps", 2)
    (tmp_path / "more.txt").write_text("chicken\nsky\n")
    command(
        "finetune", "--model", "x/", parsed, "--root", DATA, "--labels", "+more.txt",
        "--steps", 2,
    )  # fmt: skip
    before, after = Bundle.open(tmp_path / "x"), Bundle.open(tmp_path / "model-finetuned")
    assert after.labels.tags == [*before.labels.tags, "chicken"]
    assert after.meta["provenance"]["parent"] == before.fingerprint
    old, new = (b.tensors(["labels.text"])["labels.text"] for b in (before, after))
    assert np.array_equal(new[: len(old)], old)
    assert np.linalg.norm(new[-1].astype(float)) == pytest.approx(1, abs=1e-2)


CAPTIONS_ALONE = settings("training.tag_weight=0", "training.backbone_lr_factor=0")
NEEDS_A_TAGGER = "it needs a tagger with these labels to start from"


def test_without_a_weight_on_tags_captions_alone_are_learnt(train, parsed, command, tmp_path):
    train(parsed, "--out", "x", "--steps", 2)
    train(parsed, "--out", "y", "--model", "x/", "--steps", 2, *CAPTIONS_ALONE)
    before, after = (Bundle.open(tmp_path / name) for name in "xy")
    old, new = before.tensors(), after.tensors()
    changed = {name.split(".")[0] for name in old if not np.array_equal(old[name], new[name])}
    assert changed == {"captioning"}
    assert list(after.labels) == list(before.labels)
    photo = DATA / "photos" / "kite.jpg"
    tagged = [command("tag", "--model", f"{name}/", "--dense", photo).stdout for name in "xy"]
    assert tagged[0] == tagged[1] != ""


def test_a_tagger_that_is_to_see_photos_at_another_size_is_calibrated_anew(train, tmp_path):
    path = judged_photos(tmp_path)
    judged = ("--val", path, "--steps", 3, *settings("training.lr=0.01"))
    train(path, "--out", "x", *judged)
    size = settings("preprocess.size=96")
    train(path, "--out", "y", "--model", "x/", *judged, *size, *CAPTIONS_ALONE)
    before, after = (Bundle.open(tmp_path / name) for name in "xy")
    old, new = before.tensors(), after.tensors()
    changed = {name.split(".")[0] for name in old if (old[name] != new[name]).any()}
    assert changed == {"captioning"}
    assert not np.allclose(before.labels.curves, after.labels.curves)
    commands = after.meta["provenance"]["commands"]
    assert len(commands) == 2 and commands[:1] == before.meta["provenance"]["commands"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (["--steps", 1, "--epochs", 1], "--steps or --epochs: give one of them"),
        (settings("training.encoder=nosuch"), "nosuch: neither a file nor a timm model"),
        (settings("model.encoder.backbone=nosuch"), "Unknown model (nosuch)"),
        (settings("model.encoder.width=7"), "model.encoder.width is 7, test_efficientnet has 256"),
        (settings("training.frozen_stages=99"), "training.frozen_stages = 99: "),
        (settings("model.prior.classes=10"), "for the prior"),
        (["--distill", "imagenet"], "without model.prior.classes"),
        (["--distill", "oracle"], "imagenet, scores:FILE, none"),
        (["--distill", "clip"], "need a folder"),
        (settings("training.loss=ram-official", "training.decouple_own=true"),
         "is without decouple_own"),
        (CAPTIONS_ALONE, NEEDS_A_TAGGER),
        ([*CAPTIONS_ALONE, "--model", "old/", "--labels", "+more.txt"], NEEDS_A_TAGGER),
        ([*CAPTIONS_ALONE, "--model", "old/", "--set=training.caption_weight=0"], NEEDS_A_TAGGER),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_is_one_line_and_does_not_stand_in_the_way(
    train, parsed, tiny_bundle, arguments, message
):
    Path("old").symlink_to(tiny_bundle)
    Path("more.txt").write_text("zeppelin\n")
    done = train(parsed, "--out", "x", "--steps", 1, *arguments, code=2)
    assert message in done.messages and done.messages.splitlines()[-1].startswith("ramctl train: ")
    assert not Path("x.work").exists()


def test_an_unfinished_run_goes_on_with_its_own_settings_alone(train, stopped, parsed, tmp_path):
    train(parsed, "--out", "x", "--steps", 1)
    first = Bundle.open(tmp_path / "x").fingerprint
    run = ["--out", "x", "--steps", 2, "--events", "e.jsonl"]
    assert "stopped after step 1, 1 left; continue with --resume" in stopped(parsed, *run)
    assert Bundle.open(tmp_path / "x").fingerprint == first
    refused = train(parsed, *run, code=2).messages
    assert "x.work holds an unfinished run: --resume continues it; delete the folder" in refused
    fewer = write_records(tmp_path / "fewer.jsonl", read_rows(parsed)[:-1])
    Path("more.txt").write_text("sky\nzeppelin\n")
    for records, changes, differing in (
        (parsed, ["--steps", 3], "training.steps"), (fewer, [], "records, labels"),
        (parsed, ["--labels", "more.txt"], "labels"),
    ):  # fmt: skip
        done = train(records, *run, *changes, "--resume", code=2)
        assert done.messages.strip().endswith(f"x.work differs in {differing}")
    done = train(parsed, *run, "--resume")
    assert "continuing after step 1 of 2" in done.messages
    assert [event["step"] for event in steps_of("e.jsonl")] == [1, 2]
    assert Bundle.open(tmp_path / "x").fingerprint != first
    assert "x is complete: nothing to resume" in train("--out", "x", "--resume").messages


def test_a_run_that_is_ended_before_its_first_checkpoint_leaves_nothing(train, parsed, tmp_path):
    missing = [{**training_records()[0], "image": "nowhere.jpg"}]
    path = write_records(tmp_path / "in.jsonl", missing)
    done = train(path, "--out", "x", "--labels", parsed_labels(), "--steps", 3, code=1)
    assert "no photo could be read" in done.messages
    assert not Path("x.work").exists() and not Path("x").exists()


def parsed_labels() -> Path:
    Path("labels.txt").write_text("sky\nfield\n")
    return Path("labels.txt")


def test_features_that_are_kept_survive_a_signal(tiny_options, train, parsed, tmp_path):
    stop = """
import signal
from ramctl.training import features
read = features.TrainingPhoto.__call__
def signalled(photo, name, base, random):
    if name.endswith("kite.jpg"):
        signal.raise_signal(signal.SIGTERM)
    return read(photo, name, base, random)
features.TrainingPhoto.__call__ = signalled
features.PHOTOS_AT_ONCE = 1
"""
    words = [parsed, "--out", "x", "--steps", 1, *settings("training.backbone_lr_factor=0")]
    done = Ramctl(tmp_path).process("train", *words, *tiny_options, before=stop)
    assert done.returncode == -signal.SIGTERM, done.messages
    kept = (tmp_path / "x.work" / "records.f16").stat().st_size
    assert kept > 0
    train(*words, "--resume")
    assert not (tmp_path / "x.work").exists()


def test_records_from_a_pipe_train_and_resume_with_the_same_pipe(command, stopped, tiny_options):
    rows = [{**row, "image": str(DATA / row["image"])} for row in training_records()]
    stopped("--out", "x", "--steps", 2, stdin=lines(rows))
    command("train", "--out", "x", "--steps", 2, "--resume", *tiny_options, stdin=lines(rows))
    assert Path("x/bundle.json").is_file()


def test_after_twenty_steps_the_pace_and_the_memory_are_reported(train, parsed):
    done = train(parsed, "--out", "x", "--steps", 20)
    assert re.search(r"[0-9.e-]+ s a step, at most [0-9.]+ GB of memory\n", done.messages)


def test_captions_are_learnt_and_given_without_their_prompt(train, command, tmp_path):
    rows = training_records()
    text = "one small photo of outdoor things in grey colours from here"
    for row in rows:
        row |= {"captions": [text], "caption_tags": [[]]}
    path = write_records(tmp_path / "in.jsonl", rows)
    change = ("training.augment.flip=0", "training.label_smoothing=0.0", "training.lr=5e-3")
    train(path, "--out", "x", "--steps", 100, *settings(*change, "model.captioning.prompt=[CLS]"))
    done = command("tag", "--model", "x/", "--caption", DATA / "photos" / "kite.jpg")
    assert json.loads(done.stdout)["generated_captions"] == [text]


# Losses of the first steps of `tiny` on the repository's photos; they change only with the model,
# the losses, the data order or the initial weights.
GOLDEN = [  # tag, caption, distill caption
    [0.577003, 5.624602, 0.829623],
    [0.76778, 5.650045, 0.807572],
    [0.616302, 5.582075, 0.763437],
    [0.492746, 5.501368, 0.838452],
]


def test_the_first_steps_have_the_losses_that_they_had_before(train, parsed):
    small = settings("training.batch_size=4")
    train(parsed, "--out", "x", "--steps", 4, "--events", "log.jsonl", *small)
    steps = steps_of("log.jsonl")
    assert [event["photos"] for event in steps] == [4, 4, 4, 4]
    assert all(step["rate_img_s"] > 0 and 0 <= step["wait_share"] <= 1 for step in steps)
    losses = [list(event["losses"].values()) for event in steps]
    assert np.allclose(losses, GOLDEN, rtol=2e-4), losses


@pytest.mark.slow
def test_eight_photos_are_learnt_to_a_map_of_one_and_their_captions_by_heart(
    train, parsed, tmp_path
):
    rows = [{**row, "captions": row["captions"][1:], "caption_tags": row["caption_tags"][1:]}
            for row in training_records()]  # fmt: skip
    path = write_records(tmp_path / "in.jsonl", rows)
    train(
        path, "--out", "x", "--val", path, "--steps", 150, "--events", "log.jsonl",
        *settings("training.augment.flip=0", "training.label_smoothing=0.0",
                  "training.lr=5e-3", "training.gamma_neg=2.0"),
    )  # fmt: skip
    assert Bundle.open(tmp_path / "x").meta["provenance"]["measured"]["validation_mAP"] == 1.0
    last = steps_of("log.jsonl")[-1]["losses"]
    assert last["caption"] < 0.1 and last["tag"] < 0.1


def test_without_a_readable_photo_nothing_is_written(train, command, parsed, tmp_path):
    train(parsed, "--out", "x", "--steps", 1)
    before = (tmp_path / "x" / "model.safetensors").read_bytes()
    done = command("train", parsed, "--preset", "tiny", "--out", "x", "--steps", 1, code=1)
    assert "no photo could be read" in done.messages
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == before


def test_held_out_photos_that_cannot_be_used_are_reported_in_a_line(train, parsed, tmp_path):
    row = training_records()[0]
    missing = write_records(tmp_path / "missing.jsonl", [{**row, "image": "nowhere.jpg"}])
    events = ["--events", "log.jsonl"]
    done = train(parsed, "--out", "x", "--val", missing, "--epochs", 2, *events, code=3)
    assert "nan" not in done.messages.lower()
    assert "none of 1 validation photos can be used: they cannot be read" in done.messages
    bundle = Bundle.open(tmp_path / "x")
    assert bundle.meta["provenance"]["measured"] == {"validation": "none"}
    assert bundle.threshold == 0.5
    other = write_records(tmp_path / "other.jsonl", [{**row, "tags": ["zeppelin"]}])
    done = train(parsed, "--out", "x", "--val", other, "--steps", 1)
    assert "nan" not in done.messages.lower()
    assert "none of 1 validation photos can be used: their tags were not trained" in done.messages


def test_the_map_is_that_of_labels_with_evidence_and_stands_in_the_card(train, parsed, tmp_path):
    rare = ["--set", "training.fewest_positives=3"]
    done = train(parsed, "--out", "x", "--val", parsed, "--steps", 2, *rare)
    bundle = Bundle.open(tmp_path / "x")
    measured = bundle.meta["provenance"]["measured"]
    assert measured["validation_labels"] == sum(label.validated for label in bundle.labels) < 3
    value = measured["validation_mAP"]
    assert f"mAP {value:.4f} over {measured['validation_labels']} labels, 8 valid" in done.messages
    facts = yaml.safe_load((bundle.path / "README.md").read_text().split("---")[1])
    assert facts["library_name"] == "ramctl"  # as the hub reads them
    (shown,) = facts["model-index"][0]["results"]
    assert shown["metrics"] == [{"type": "mAP", "value": value}]


def test_a_prior_without_text_embedding_is_refused_by_its_own_name(train, parsed, monkeypatch):
    package = SimpleNamespace(is_installed=True, project="weights")
    monkeypatch.setattr(initial.packages, "PACKAGED", {"test_efficientnet": package})
    head = torch.zeros(9, 256), torch.zeros(9)
    monkeypatch.setattr(initial, "load_encoder", lambda *_: (head, "the package weights"))
    changes = "model.labels.kind=learnt", "model.prior.classes=9", "training.distill=[]"
    done = train(parsed, "--out", "x", "--steps", 1, *settings(*changes), code=2)
    assert "no texts for the ImageNet classes for the prior" in done.messages


def test_photos_to_validate_on_may_be_packed(train, parsed, tmp_path):
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress(parsed.read_bytes()))
    # Both are copied, and neither is taken for the other.
    train("records.jsonl.gz", "--val", "records.jsonl.gz", "--out", "x", "--steps", 2)
    train(parsed, "--val", parsed, "--out", "y", "--steps", 2)
    assert_same_weights(Path("x"), Path("y"))


def test_the_manuals_preset_of_another_backbone_trains_and_tags(command, parsed, tmp_path):
    manual = REPOSITORY / "ramctl" / "training" / "README.md"
    (text,) = re.findall(r"```toml\n(.*?)```", manual.read_text("utf-8"), re.DOTALL)
    (tmp_path / "mobilenet.toml").write_text(text)
    small = settings("training.encoder=", "preprocess.size=64", "training.batch_size=4")
    options = ["--root", DATA, "--out", "x", "--steps", 1, *small]
    command("train", parsed, "--preset", "mobilenet.toml", *options)
    done = command("tag", "--model", "x/", "--threshold", 0, DATA / "photos" / "horses.jpg")
    assert json.loads(done.stdout)["tags"]
