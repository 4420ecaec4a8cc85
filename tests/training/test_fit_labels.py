"""`finetune` on captioned photos: labels fit them, new words are learnt, what was known stays."""

import json

import numpy as np
import pytest
from PIL import Image

from ramctl.checkpoints.bundle import REFERENCE, Bundle, BundleWriter, embedded_bundle
from ramctl.inference.calibration import Calibration
from ramctl.inference.label_rows import label_rows
from ramctl.inference.thresholds import bundle_labels
from ramctl.records.record import Record
from ramctl.records.report import Report
from ramctl.tagging.tagger import Tagger
from ramctl.training.data.targets import read_annotation
from ramctl.training.fit_labels import Looked, _figures
from tests.command import Ramctl
from tests.support import read_rows, write_records

WORDS = "lies alone on a plain table in a quiet room, seen from the side, in soft light"


def picture(kind: str, number: int) -> Image.Image:
    """Checks or stripes, of any colour."""
    random = np.random.default_rng(number)
    rows, columns = np.mgrid[:96, :96] // random.integers(8, 16)
    is_dark = (rows + columns) % 2 if kind == "widget" else rows % 2
    colors = random.integers(0, 256, (2, 3))
    return Image.fromarray(colors[is_dark].astype(np.uint8))


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    """A fit of 24 photos that differ this much needs no more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ramctl.training.label_vectors.ROUNDS", 15)
        yield


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a run on twelve photos of a new thing and twelve of a sock: its stderr too."""
    folder = tmp_path_factory.mktemp("fit")
    records = []
    for number in range(24):
        kind = ("widget", "sock")[number % 2]
        picture(kind, number).save(folder / f"{number}.png")
        records.append({
            "image": f"{number}.png", "captions": [f"A {kind} {WORDS}"], "tags": [kind, "table"],
            "caption_tags": [[kind, "table"]], "kinds": {kind: "object", "table": "object"},
        })  # fmt: skip
    write_records(folder / "parsed.jsonl", [*records, {"image": "none.png", "tags": ["sock"]}])
    arguments = [
        "finetune",
        "parsed.jsonl",
        "--model",
        "mini",
        "--out",
        "mine",
        "--stats",
        "s.json",
    ]
    done = Ramctl(folder)(*arguments)
    return folder, done


def test_a_word_of_the_captions_becomes_a_label_and_is_learnt(fitted):
    folder, done = fitted
    assert done.returncode == 3 and b"none.png" in done.stderr  # a record without its photo
    assert b"new labels, and how many photos name them: widget (12)" in done.stderr
    bundle, mini = Bundle.open(folder / "mine"), Bundle.open(embedded_bundle())
    assert bundle.labels.tags == [*mini.labels.tags, "widget"]
    tagger = Tagger.from_pretrained(folder / "mine", dense=True)
    scores = {kind: [] for kind in ("widget", "sock")}
    for number in range(100, 110):  # photos that the fit did not see
        for kind, found in scores.items():
            dense = tagger.tag([picture(kind, number)])[0].dense
            found.append([dense[bundle.labels.ids(word)[0]] for word in ("widget", "sock")])
    lead = np.log(np.array(scores["widget"])) - np.log(np.array(scores["sock"]))
    assert (lead[:, 0] > 0).mean() >= 0.9 and (lead[:, 1] < 0).mean() >= 0.9


def test_it_reports_what_it_brings_on_held_out_photos(fitted):
    folder, done = fitted
    figures = json.loads((folder / "s.json").read_text())
    before, after = figures["before"], figures["after"]
    assert before["first_thing_found"] == 0 < after["first_thing_found"]
    assert f"before, on held-out photos: {before['tags']} tags a photo".encode() in done.stderr
    assert Bundle.open(folder / "mine").meta["provenance"]["fitted"]["after"] == after


def test_without_captions_it_reports_no_figures_of_their_things():
    mini = bundle_labels(Bundle.open(embedded_bundle()))
    notes = [read_annotation(Record({"image": "a.png", "tags": ["sock"]}))]
    log_odds = np.full((1, len(mini.labels)), -9.0)
    looked = Looked(notes, np.zeros((1, 1)), log_odds)
    figures = _figures(mini, mini, looked, log_odds, Report("finetune", quiet=True, unit="photos"))
    assert set(figures["before"]) == set(figures["after"]) == {"tags"}


def test_the_card_has_the_figures_of_the_fit_first(fitted):
    folder, _ = fitted
    card = (folder / "mine" / "README.md").read_text("utf-8")
    assert card.startswith("# mine\n\nLabels fitted to 24 captioned photos")
    assert "New labels: widget." in card and card.index("New labels") < card.index("# mini")


def test_all_labels_have_one_threshold_where_they_can(fitted):
    folder, _ = fitted
    labels = Bundle.open(folder / "mine").labels
    given = [label.threshold for label in labels if label.validated]
    values, counts = np.unique(np.round(given, 3), return_counts=True)
    assert counts.max() > 0.7 * len(given), values[:9]


def test_captions_that_name_no_label_are_refused_in_one_line(fitted, tmp_path, ramctl):
    folder, _ = fitted
    rows = read_rows(folder / "parsed.jsonl")[:24]
    untagged = [row | {"tags": [], "caption_tags": [[]]} for row in rows]
    write_records(tmp_path / "empty.jsonl", untagged)
    done = ramctl("finetune", "empty.jsonl", "--root", folder, "--out", "x")
    assert done.returncode == 1 and not (tmp_path / "x").exists()
    assert b"0 photos have a label among their tags: 20 are needed" in done.stderr


def test_what_it_knew_stays(fitted):
    folder, _ = fitted
    mine, mini = Bundle.open(folder / "mine"), Bundle.open(embedded_bundle())
    n, width = len(mini.labels), mini.preset.model.labels.own_width
    old, new = label_rows(mini), label_rows(mine)[:n]
    text = old.shape[1] - width - 1
    np.testing.assert_array_equal(new[:, : text + width], old[:, : text + width])
    calibration = Calibration.from_bundle(mine)
    assert len(calibration.slopes) == n + 1
    # Labels that no caption is about change little.
    far = [mini.labels.ids(tag)[0] for tag in ("airplane", "elephant", "beach")]
    assert abs(new[far, -1] - old[far, -1]).max() < 0.5


def test_graphs_agree_with_the_weights(fitted):
    folder, _ = fitted
    photos = [picture("widget", 200), picture("sock", 201)]
    scores = [
        np.array(
            [
                photo.dense
                for photo in Tagger.from_pretrained(folder / "mine", dense=True, **how).tag(photos)
            ]
        )
        for how in ({"runtime": "torch"}, {"dtype": "fp32"}, {"dtype": "int8"})
    ]
    np.testing.assert_allclose(*scores[:2], atol=2e-3)
    mine, widget = Bundle.open(folder / "mine"), -1
    assert mine.dtype == "int8" and 0 < np.abs(scores[2] - scores[0]).max() < 0.15
    assert scores[2][:, widget] == pytest.approx(scores[0][:, widget], abs=0.05)


def test_few_photos_are_refused(fitted, tmp_path, ramctl):
    folder, _ = fitted
    rows = read_rows(folder / "parsed.jsonl")[:5]
    write_records(tmp_path / "few.jsonl", rows)
    done = ramctl("finetune", "few.jsonl", "--root", folder, "--out", "x")
    assert done.returncode == 1 and b"5 photos are too few: 20 are needed" in done.stderr


@pytest.mark.parametrize("content", [b"no numbers", np.zeros((3, 7), np.float16)])
def test_a_damaged_reference_is_named_in_one_line(content, fitted, tmp_path, ramctl):
    folder, _ = fitted
    bundle = Bundle.open(embedded_bundle())
    with BundleWriter(tmp_path / "damaged") as writer:
        writer.copy_files(bundle, without={REFERENCE})
        path = writer.path / REFERENCE
        path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
        writer.meta = bundle.meta
    arguments = ["parsed.jsonl", "--model", tmp_path / "damaged", "--out", tmp_path / "x"]
    done = Ramctl(folder)("finetune", "-q", *arguments)
    assert done.returncode == 1 and not (tmp_path / "x").exists()
    (line,) = [text for text in done.stderr.splitlines() if b"none.png" not in text]
    assert b"damaged/reference.npy: " in line


def test_a_run_that_starts_again_gives_the_same_bundle(fitted, tmp_path, ramctl):
    folder, _ = fitted
    arguments = ["finetune", folder / "parsed.jsonl", "--root", folder, "--out", "x"]
    content = (folder / "parsed.jsonl").read_bytes()
    ramctl(*arguments[:1], *arguments[2:], "--resume", "-j", "1", stdin=content)  # from a pipe
    for name in ("model.safetensors", "calibration.json", "labels.jsonl", "model.int8.onnx"):
        assert (tmp_path / "x" / name).read_bytes() == (folder / "mine" / name).read_bytes()


def test_options_of_steps_are_refused(fitted, tmp_path, ramctl):
    folder, _ = fitted
    done = ramctl("finetune", folder / "parsed.jsonl", "--out", "x", "--seed", 0, "--text", ".")
    named = "--text, --seed: only for training in steps"
    assert done.returncode == 2 and named in done.messages


def test_judged_photos_choose_the_thresholds(fitted, tmp_path, ramctl):
    folder, _ = fitted
    judged = [
        {"image": str(folder / f"{i}.png"), "tags": [("widget", "sock")[i % 2]]} for i in range(24)
    ]
    write_records(tmp_path / "judged.jsonl", judged)
    arguments = ["finetune", folder / "parsed.jsonl", "--root", folder, "--val", "judged.jsonl"]
    done = ramctl(*arguments, "--out", "x")
    assert done.returncode == 3, done.messages
    by_captions, by_judged = (
        Calibration.from_bundle(Bundle.open(b)) for b in (folder / "mine", tmp_path / "x")
    )
    widget = -1
    assert by_judged.offsets[widget] != by_captions.offsets[widget]
    assert by_judged.mention_rates[widget] == by_captions.mention_rates[widget]
