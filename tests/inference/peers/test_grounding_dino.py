"""Grounding DINO against its own processor and raw outputs."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

from ramctl.inference.peers import open_peer
from ramctl.inference.peers.grounding_dino import MAX_TOKENS, GroundingDino, pack_prompts
from ramctl.model.device import Runtime
from tests.inference.peers.support import LABELS, save_port

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


def test_scores_and_boxes_equal_the_raw_outputs_of_the_library(port, photos, bert_tokenizer):
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
