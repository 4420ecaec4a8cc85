"""Mask2Former against the segments that transformers' own pipeline finds."""

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.inference.peers import open_peer
from tests.peers.support import small_swin

CLASSES = ["dog", "wall-other-merged", "tree-merged", "dining table", "floor-wood", "sky"]
SIZES = {
    "hidden_dim": 32, "encoder_feedforward_dim": 32, "dim_feedforward": 32, "encoder_layers": 1,
    "decoder_layers": 2, "num_attention_heads": 4, "num_queries": 10,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: index for index, name in enumerate(CLASSES)},
}  # fmt: skip
SIZE = {"shortest_edge": 64, "longest_edge": 128}


def sharpen(model):
    """Random segments that differ, and classes that are told apart."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "class_predictor" in name or "class_embed" in name:
                tensor.normal_(0, 0.5)
            if "queries_embedder" in name or "queries_features" in name:
                tensor.normal_(0, 3)
    return model.eval()


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory):
    import transformers

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("mask2former")
    swin = small_swin(1, 2, 3, 4)
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, **SIZES
    )
    sharpen(transformers.Mask2FormerForUniversalSegmentation(config)).save_pretrained(folder)
    transformers.Mask2FormerImageProcessor(size=SIZE, ignore_index=255).save_pretrained(folder)
    return folder


def test_scores_are_those_of_the_librarys_segments(mask2former, photos):
    import transformers

    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(mask2former).eval()
    processor = transformers.Mask2FormerImageProcessor.from_pretrained(mask2former)
    peer = open_peer(f"mask2former:{mask2former}", [], device="cpu")
    scores = peer.scores(photos[:2])
    n_segments = 0
    for photo, row in zip(photos[:2], scores, strict=True):
        inputs = processor(images=[Image.fromarray(photo)], return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        found = processor.post_process_panoptic_segmentation(
            outputs, threshold=0.0, mask_threshold=0.0, overlap_mask_area_threshold=0.0,
            label_ids_to_fuse=set(),
        )[0]["segments_info"]  # fmt: skip
        n_segments += len(found)
        for segment in found:
            assert row[segment["label_id"]] >= segment["score"] - 1e-5
        best = max(found, key=lambda segment: segment["score"])
        assert row[best["label_id"]] == pytest.approx(best["score"], abs=1e-5)
        whole = outputs.class_queries_logits.softmax(-1)[0, :, :-1].max(0).values
        np.testing.assert_allclose(row, whole.numpy(), atol=1e-5)
    assert n_segments >= 2


def test_classes_are_found_by_their_everyday_names(mask2former, photos):
    labels = ["wall", "Dining-Table", "unicorn", "floor wood"]
    peer = open_peer(f"mask2former:{mask2former}", labels, device="cpu")
    own = open_peer(f"mask2former:{mask2former}", [], device="cpu")
    assert own.labels == ("dog", "wall", "tree", "dining table", "floor-wood", "sky")
    assert peer.labels == tuple(labels) and peer.unknown == ("unicorn",)
    scores = peer.scores(photos[:1])
    np.testing.assert_array_equal(scores[:, [0, 1, 3]], own.scores(photos[:1])[:, [1, 3, 4]])
    assert scores[0, 2] == 0
