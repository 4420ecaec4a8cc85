"""open_clip's models against what open_clip itself computes."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ramctl.engine.peers import open_peer
from ramctl.errors import RunProblem
from ramctl.text.clip import label_prompts
from tests.peers.support import LABELS, randomise

open_clip = pytest.importorskip("open_clip", reason="needs open_clip_torch")

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
PREPROCESS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}


@pytest.fixture(params=[False, True], ids=["clip", "siglip"])
def folder(tmp_path, request):
    """A model of random weights, as open_clip's own export to the hub writes it."""
    from safetensors.torch import save_file

    config = CONFIG | ({"init_logit_bias": -2.0} if request.param else {})
    model = randomise(open_clip.CLIP(**config))
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
    return tmp_path


@torch.inference_mode()
def test_scores_are_open_clips_own(folder, photos):
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    pixels = torch.stack([preprocess(Image.fromarray(photo)) for photo in photos])
    tokenize, columns = open_clip.get_tokenizer(name), []
    image = model.eval().encode_image(pixels, normalize=True)
    for label in LABELS:
        mean = model.encode_text(tokenize(label_prompts(label)), normalize=True).mean(0)
        columns.append(image @ mean / mean.norm())
    cosines = torch.stack(columns, 1)
    expected = (1 + cosines) / 2
    if model.logit_bias is not None:
        expected = (cosines * model.logit_scale.exp() + model.logit_bias).sigmoid()
    peer = open_peer(f"open-clip:{folder}", LABELS, device="cpu")
    np.testing.assert_allclose(peer.scores(photos), expected.numpy(), atol=1e-5)
    assert peer.scores(photos).std(0).min() > 1e-3


def test_what_is_no_such_model_is_named(folder):
    (folder / "open_clip_model.safetensors").write_bytes(b"none")
    with pytest.raises(RunProblem, match=re.escape(folder.name)):
        open_peer(f"open-clip:{folder}", LABELS, device="cpu")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(RunProblem, match=r"no open_clip_config\.json in it"):
        open_peer(f"open-clip:{folder}", LABELS, device="cpu")
