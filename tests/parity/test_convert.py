"""`ramctl convert` on the authors' checkpoints: from file to tags, every key used, their labels."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ramctl.apps.conversion import ConvertOptions, convert_checkpoint, read_official_labels
from ramctl.checkpoints import official
from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer, load_model
from ramctl.checkpoints.weights import weights_of
from ramctl.errors import RunProblem
from ramctl.inference.log_odds import Probabilities
from ramctl.inference.onnx_engine import OnnxEngine
from ramctl.inference.vocabulary import label_rows
from tests.parity.conftest import FILES, N_LABELS

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("architecture", list(FILES))
def test_checkpoint_to_bundle_to_graph_gives_the_authors_decisions(
    architecture, convert, load_recorded, ramctl
):
    recorded = load_recorded(architecture)
    facts, io = recorded.facts, recorded.io
    bundle, done = convert(architecture)
    assert done.stdout == b""
    done = ramctl("convert", bundle.path, "--to", "onnx")
    assert done.returncode == 0, done.messages
    bundle = Bundle.open(bundle.path)
    assert bundle.has("photo.onnx") and bundle.has("labels.onnx")
    stored, given = bundle.tensors(), weights_of(recorded.model)
    assert stored.keys() == given.keys()
    for name, value in given.items():  # every bit, and no fp16 that a tolerance would let pass
        np.testing.assert_array_equal(stored[name], value.detach().numpy(), err_msg=name)
        assert stored[name].dtype == value.detach().numpy().dtype
    model = load_model(bundle, captioning=False)
    with torch.no_grad():
        probabilities = model(io["image"]).logits.total.sigmoid()
    decided = probabilities > torch.from_numpy(bundle.labels.thresholds(bundle.threshold))
    ours = [row.nonzero().flatten().tolist() for row in decided]
    assert ours == facts["decisions"]["class_threshold"]
    pytest.importorskip("onnxruntime")
    labels = label_rows(bundle)
    np.testing.assert_array_equal(labels.rows, model.labels().detach().numpy())
    engine = OnnxEngine(bundle, labels)
    logits = engine.logits(engine.encode(io["image"].numpy()))
    np.testing.assert_allclose(logits, io["eval.logits"].numpy(), atol=1e-3)
    decided = Probabilities(labels)(logits) > labels.thresholds(bundle.threshold)
    assert [np.flatnonzero(row).tolist() for row in decided] == ours
    if architecture != "ram-plus":
        assert load_caption_tokenizer(bundle).start_tags == 152
    if "tag_list_chinese" in facts:
        names = [label.names["zh"] for label in bundle.labels]
        assert names == [name.strip() for name in facts["tag_list_chinese"]]


def test_a_checkpoint_that_only_tags_is_a_bundle_that_says_so(files, ramctl, tmp_path):
    arguments, _, _ = files("ram")
    tensors = torch.load(arguments[0], weights_only=True)["model"]
    left_out = ("tag_encoder.", "text_decoder.")
    part = {f"module.{k}": v for k, v in tensors.items() if not k.startswith(left_out)}
    torch.save({"model": part}, arguments[0])
    done = ramctl("convert", *arguments)
    assert done.returncode == 0, done.stderr
    assert b"no captions: the checkpoint has no captioning branch" in done.stderr
    assert not Bundle.open(tmp_path / "bundle").has("tokenizer.json")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tags": None, "thresholds": None}, "has 24 labels, the tag list 4585"),
        ({"tags": "short.txt"}, "24 thresholds for 2 labels"),
        ({"thresholds": "short.txt"}, "short.txt:1: expected .*threshold"),
        ({"vocab": "short.txt"}, "short.txt: not BERT's vocabulary"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    files, tmp_path, monkeypatch, change, complaint
):
    (tmp_path / "short.txt").write_text("dog\ncat\n")
    files("ram")
    monkeypatch.chdir(tmp_path)
    options = ConvertOptions(
        "ram_tiny.pth", "ram", "tags.jsonl", "thresholds.txt", out=tmp_path / "bundle"
    )
    with pytest.raises(RunProblem, match=complaint):
        convert_checkpoint(replace(options, **change))
    assert not (tmp_path / "bundle").exists()


def test_tag2text_labels_keep_their_doubles_and_know_their_kinds(parity):
    labels = read_official_labels(None, "tag2text")
    authors = parity.parent / "labels" / "ram" / "tag2text_ori_tag_list.txt"
    assert labels.tags == authors.read_text("utf-8").splitlines()
    assert len(labels) == 3429
    assert len(set(labels.tags)) == 3313
    kinds = [label.kind for label in labels]
    assert (kinds.count("action"), kinds.count("attribute")) == (240, 177)
    assert kinds.count("scene") > 400 and set(kinds[:3012]) == {"object", "scene"}
    assert {labels[i].tag: labels[i].threshold for i in (2701, 2828, 1167, 127, 3351)} == {
        "person": 0.7, "man": 0.7, "woman": 0.7, "quarter": 1.0, "two": 1.0,
    }  # fmt: skip
    never = {127, 2961, 3265, 3338, 3351, 3355, 3359}
    assert {i for i in range(3429) if labels[i].threshold == 1.0} == never
    assert sum(label.threshold is not None for label in labels) == 10


@pytest.mark.parametrize(
    ("arch", "name"), [("tag2text", "tag2text_ori_tag_list.txt"), ("ram", "ram_tag_list.txt")]
)
def test_the_authors_list_named_as_a_file_is_the_one_that_is_shipped(arch, name, parity, tmp_path):
    authors = parity.parent / "labels" / "ram" / name
    shipped = read_official_labels(None, arch)
    assert list(read_official_labels(str(authors), arch)) == list(shipped)
    other = tmp_path / "other.txt"
    other.write_text("quarter\n" + authors.read_text("utf-8"))
    assert all(label.threshold is None for label in read_official_labels(str(other), arch))


def test_ram_labels_keep_the_authors_strings_order_and_thresholds_and_have_kinds(parity):
    folder = parity.parent / "labels" / "ram"
    texts = [
        [line.strip() for line in (folder / f"ram_tag_list{name}.txt").open(encoding="utf-8")]
        for name in ("", "_threshold", "_chinese")
    ]
    labels = read_official_labels(None, "ram")
    given = [(label.tag, str(label.threshold), label.names["zh"]) for label in labels]
    assert given == [(tag, str(float(value)), zh) for tag, value, zh in zip(*texts, strict=True)]
    assert sum(label.threshold == 0.65 for label in labels) == 3414
    kinds = {label.tag: label.kind for label in labels}  # those that the parser gives them
    expected = {
        "dog": "object", "picture": "object", "monastery": "scene", "lake": "scene",
        "swim": "action", "kick": "action", "red": "attribute", "wet": "attribute",
    }  # fmt: skip
    assert {tag: kinds[tag] for tag in expected} == expected
    assert len(kinds) == 4585 and list(kinds.values()).count("scene") > 500


FULL_SIZE = {  # the list of keys, the number of labels, and the preset
    "ram": ("full_size_keys_ram_swin_large.txt", 4585, "ram-swin-l"),
    "ram-plus": ("full_size_keys_ram_plus_swin_large.txt", 4585, "ram-plus-swin-l"),
    "tag2text": ("full_size_keys_tag2text_swin.txt", 3429, "tag2text-swin-b"),
}


def full_size_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors without memory, of the names and shapes in the list."""
    tensors = {}
    for line in path.read_text("utf-8").splitlines():
        name, shape, dtype, *_ = line.split("\t")
        sizes = [int(size) for size in shape.strip("()").split(",") if size.strip()]
        tensors[name] = torch.empty(sizes, dtype=getattr(torch, dtype), device="meta")
    return tensors


@pytest.mark.parametrize("architecture", list(FULL_SIZE))
def test_every_full_size_key_is_used_or_derivable_and_tells_the_backbone(parity, architecture):
    name, n_labels, expected = FULL_SIZE[architecture]
    tensors = full_size_tensors(parity / name)
    preset = official.infer_preset(architecture, tensors)
    size = "base" if architecture == "tag2text" else "large"
    encoder = preset.model.encoder
    assert (encoder.backbone, encoder.window_size, preset.name) == (
        f"swin_{size}_patch4_window12_384", 12, expected,
    )  # fmt: skip
    assert (preset.preprocess.size, preset.preprocess.loader) == (384, "official")
    with torch.device("meta"):
        model = official.build_official(preset, tensors, n_labels)
    official.check_official_keys(official.official_targets(model), tensors)


NORM = "tagging_head.encoder.layer.0.output.LayerNorm.bias"


@pytest.mark.parametrize(
    ("held", "asked", "change", "complaint"),
    [
        ("ram", "ram", lambda t: t.pop("fc.weight"), "missing fc.weight"),
        ("ram", "ram", lambda t: t.update(surprise=torch.zeros(1)), "unknown surprise"),
        ("ram", "ram", lambda t: t.update({"fc.weight": torch.zeros(1, 5)}),
         r"fc.weight has shape \[1, 5\]"),
        ("ram", "ram", lambda t: t.pop("label_embed"), "not a ram .+missing label_embed"),
        ("ram", "ram", lambda t: t.update({NORM: torch.ones(96)}), "must equal"),
        ("ram", "ram", lambda t: [t.pop(k) for k in [*t] if k.startswith("text_decoder.")],
         "missing text_decoder"),
        ("ram-plus", "ram-plus", lambda t: t.update(label_embed=torch.zeros(1225, 512)),
         "1225 descriptions do not divide into 24"),
        *((held, asked, len, f"a {held} checkpoint, not {asked}: .+--arch {held}$")
          for held in FILES for asked in FILES if held != asked),
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_an_error_that_names_the_key(
    parity, held, asked, change, complaint
):
    tensors = official.read_official(parity / f"{FILES[held]}.safetensors")
    change(tensors)
    with pytest.raises(RunProblem, match=complaint):
        official.convert_official(asked, tensors, N_LABELS[asked])


WORDS = "text_decoder.bert.embeddings.word_embeddings.weight"
SHARED = r"encoder\.layer\.[01]\.(crossattention|intermediate|output)\."


@pytest.mark.parametrize(
    "left_out",
    [
        rf"tagging_head\.{SHARED}",
        rf"tag_encoder\.{SHARED}",
        r"text_decoder\.cls\.predictions\.decoder\.",
        re.escape(WORDS),
    ],
)
def test_shared_tensors_may_be_stored_once_and_under_names_of_a_distributed_run(
    parity, tmp_path, left_out
):
    whole = official.read_official(parity / "ram_tiny.safetensors")
    part = {f"module.{k}": v for k, v in whole.items() if not re.match(left_out, k)}
    assert len(part) < len(whole)
    torch.save({"model": part}, tmp_path / "x.pth")
    tensors = official.read_official(tmp_path / "x.pth")
    assert tensors.keys() == whole.keys()
    preset, model = official.convert_official("ram", tensors, 24)
    expected_preset, expected = official.convert_official("ram", whole, 24)
    assert preset == expected_preset
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
