"""Grounding DINO by both implementations, against their own processors and raw outputs."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.device import Runtime
from ramctl.errors import RunProblem, UsageProblem
from ramctl.peers import open_peer
from ramctl.peers.grounding_dino import MAX_TOKENS, GroundingDino, pack_prompts
from tests.peers.small_dino import BERT, save_original, save_port
from tests.peers.support import LABELS

RUNTIME = Runtime.choose("cpu", "fp32")


@pytest.fixture(scope="module")
def port(tmp_path_factory, bert_tokenizer):
    """A small Grounding DINO of the transformers library."""
    return save_port(tmp_path_factory.mktemp("port"), bert_tokenizer)


def token_spans(tokenizer, text, labels):
    """Where each label's characters are among the tokens."""
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    spans, start = [], 0
    for label in labels:
        start = text.index(label, start)
        inside = range(start, start + len(label))
        spans.append([i for i, (a, b) in enumerate(offsets) if a < b and a in inside])
        start += len(label)
    return spans


def test_port_scores_equal_the_raw_outputs_of_the_librarys_processor(port, photos, bert_tokenizer):
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    model = GroundingDinoForObjectDetection.from_pretrained(port).eval()
    processor = GroundingDinoProcessor.from_pretrained(port)
    peer = open_peer(f"grounding-dino:{port}", LABELS, device="cpu")
    scores = peer.scores(photos[:2])
    found = [peer.detect(photo, LABELS) for photo in photos[:2]]
    for photo, row, detections in zip(photos[:2], scores, found, strict=True):
        inputs = processor(images=Image.fromarray(photo), text=[LABELS], return_tensors="pt")
        text = processor._preprocess_input_text([LABELS])[0]
        with torch.no_grad():
            outputs = model(**inputs)
        probabilities = outputs.logits[0].sigmoid()
        whole = processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=0.0, text_threshold=0.0
        )[0]
        for column, span in enumerate(token_spans(bert_tokenizer, text, LABELS)):
            each = probabilities[:, span].mean(1)
            assert row[column] == pytest.approx(float(each.max()), abs=1e-5)
            assert detections[column].score == pytest.approx(float(each.max()), abs=1e-5)
            box = whole["boxes"][int(each.argmax())].clamp(0, 1)
            np.testing.assert_allclose(detections[column].box, box.numpy(), atol=1e-5)
    assert scores.std() > 1e-3 and scores.min() > 0.01 and scores.max() < 0.99


def test_each_photo_is_asked_for_its_own_labels(port, photos):
    peer = GroundingDino(port, (), RUNTIME)
    wanted = [["dog", "red"], [], ["living room"]]
    found = [peer.detect(photo, own) for photo, own in zip(photos, wanted, strict=True)]
    assert [len(row) for row in found] == [2, 0, 1]
    assert peer.detect(photos[2], ["living room"]) == found[2]
    for row in found:
        for (x0, y0, x1, y1), score in row:
            assert 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1 and 0 < score < 1


def test_a_label_without_letters_scores_nothing(port, photos):
    found = GroundingDino(port, (), RUNTIME).detect(photos[0], ["...", "St. Bernard"])
    assert found[0].score == 0 and found[0].box == (0, 0, 1, 1)
    assert found[1].score > 0


def test_every_label_is_whole_in_exactly_one_prompt(bert_tokenizer):
    def tokenize(text):
        return bert_tokenizer(text, add_special_tokens=False)["input_ids"]

    labels = [f"{LABELS[n % 5]} {'x' * (n % 7)}".strip() for n in range(300)]
    prompts = pack_prompts(labels, tokenize)
    assert [label for prompt in prompts for label in prompt.labels] == list(range(300))
    assert 3 < len(prompts) < 10
    for prompt in prompts:
        ids = bert_tokenizer(prompt.text)["input_ids"]
        assert len(ids) <= MAX_TOKENS
        for label, (start, end) in zip(prompt.labels, prompt.spans, strict=True):
            assert bert_tokenizer.decode(ids[start:end]) == labels[label]
            assert ids[end] == bert_tokenizer.convert_tokens_to_ids(".")
    for prompt, following in itertools.pairwise(prompts):
        n_tokens = len(bert_tokenizer(prompt.text)["input_ids"])
        assert n_tokens + len(tokenize(labels[following.labels[0]])) + 1 > MAX_TOKENS


def test_a_label_longer_than_a_prompt_is_wrong_usage(bert_tokenizer):
    with pytest.raises(UsageProblem, match="longer than one prompt"):
        pack_prompts(["dog " * 260], lambda text: text.split())


def test_another_vocabulary_than_berts_is_refused(port, clip_tokenizer, tmp_path):
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(port / name, tmp_path)
    clip_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RunProblem, match="bert-base-uncased"):
        open_peer(f"grounding-dino:{tmp_path}", LABELS, device="cpu")


@pytest.fixture(scope="module")
def original(tmp_path_factory, bert_tokenizer):
    """A checkpoint as the authors write it, and the model it came from."""
    folder = tmp_path_factory.mktemp("original")
    return folder, save_original(folder, bert_tokenizer)


@pytest.fixture(scope="module")
def strip():
    """A long thin photo: it has few pixels when its longer side has grown to 1,333."""
    return np.random.default_rng(0).integers(0, 256, (8, 200, 3)).astype(np.uint8)


@pytest.mark.slow
def test_original_scores_equal_the_packages_own_prediction(
    original, strip, bert_tokenizer, tmp_path, capsys
):
    from groundingdino.util.inference import load_image, predict

    folder, model = original
    Image.fromarray(strip).save(tmp_path / "strip.png")
    _, pixels = load_image(str(tmp_path / "strip.png"))
    text = ". ".join(LABELS) + "."
    boxes, logits, _ = predict(model, pixels, text, -1.0, 0.25, device="cpu")
    with torch.no_grad():
        outputs = model(pixels[None], captions=[text])
    probabilities = outputs["pred_logits"][0].sigmoid()
    torch.testing.assert_close(probabilities.max(1).values, logits)
    capsys.readouterr()
    peer = open_peer(f"grounding-dino:{folder}", LABELS, device="cpu")
    (row,) = peer.scores([strip])
    found = peer.detect(strip, LABELS)
    assert capsys.readouterr().out == ""
    for column, span in enumerate(token_spans(bert_tokenizer, text, LABELS)):
        each = probabilities[:, span].mean(1)
        assert row[column] == pytest.approx(float(each.max()), abs=1e-5)
        x, y, w, h = boxes[int(each.argmax())]
        corners = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).clamp(0, 1)
        np.testing.assert_allclose(found[column].box, corners.numpy(), atol=1e-5)
    assert row.std() > 1e-4


def test_the_package_keeps_its_own_text_encoder(original, strip):
    package = pytest.importorskip("groundingdino.models.GroundingDINO.groundingdino")
    from groundingdino.models.GroundingDINO.bertwarper import BertModelWarper
    from groundingdino.util import get_tokenlizer

    folder, _ = original
    GroundingDino(folder / "groundingdino_tiny.pth", (), RUNTIME)
    assert package.BertModelWarper is BertModelWarper
    assert package.get_tokenlizer is get_tokenlizer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_phrase_is_read_as_if_it_were_alone(bert_tokenizer, attention):
    package = pytest.importorskip("groundingdino.models.GroundingDINO.bertwarper")
    from transformers import BertConfig, BertModel

    from ramctl.peers.grounding_dino import with_phrase_mask

    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(bert_tokenizer), attn_implementation=attention, **BERT)
    bert = BertModel(config).eval()
    tokens = bert_tokenizer(["dog. living room. red."], return_tensors="pt")
    limits = bert_tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"])
    mask, positions, _ = package.generate_masks_with_special_tokens_and_transfer_map(
        tokens, limits, bert_tokenizer
    )
    with torch.no_grad():
        masked = tokens | {"attention_mask": mask, "position_ids": positions}
        together = with_phrase_mask(bert)(**masked).last_hidden_state[0]
        start = 1
        for phrase in ("dog.", "living room.", "red."):
            ids = bert_tokenizer(phrase, add_special_tokens=False, return_tensors="pt")
            alone = bert(**ids).last_hidden_state[0]
            own = together[start : start + len(alone)]
            torch.testing.assert_close(own, alone, atol=1e-5, rtol=0)
            start += len(alone)


def test_an_original_checkpoint_without_its_tokenizer_says_so(original, tmp_path):
    shutil.copy(original[0] / "groundingdino_tiny.pth", tmp_path)
    with pytest.raises(RunProblem, match=r"no tokenizer\.json or vocab\.txt, here or in"):
        open_peer(f"grounding-dino:{tmp_path}", LABELS, device="cpu")


def test_another_checkpoint_is_not_taken_for_the_detector(tmp_path, bert_tokenizer):
    pytest.importorskip("groundingdino")
    torch.save({"model": {"weight": torch.zeros(2)}}, tmp_path / "other.pth")
    bert_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RunProblem, match="not a Grounding DINO"):
        open_peer(f"grounding-dino:{tmp_path / 'other.pth'}", LABELS, device="cpu")


def test_photos_of_extreme_shapes_are_scored(port, odd_photos):
    scores = open_peer(f"grounding-dino:{port}", LABELS, device="cpu").scores(odd_photos)
    assert np.isfinite(scores).all() and scores.shape == (len(odd_photos), len(LABELS))


@pytest.mark.slow
def test_bf16_moves_scores_a_little(port, original, photos, strip):
    for folder, photo in ((port, photos[0]), (original[0], strip)):
        exact, half = (
            open_peer(f"grounding-dino:{folder}", LABELS, device="cpu", dtype=dtype).scores([photo])
            for dtype in ("fp32", "bf16")
        )
        np.testing.assert_allclose(half, exact, atol=0.2)
