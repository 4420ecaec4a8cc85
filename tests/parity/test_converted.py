"""The authors' models in `ramctl finetune`, and RAM++'s descriptions of any number in `tag`."""

import numpy as np
import orjson
import pytest
import torch

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.clip import ClipTextEncoder
from ramctl.checkpoints.load import load_model
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import load_photo
from tests.inference.peers.support import clip_tokenizer, save_clip_text
from tests.parity.conftest import FILES
from tests.training.conftest import DATA, read_rows, settings, training_records, write_records

__all__ = ["clip_tokenizer"]

pytestmark = pytest.mark.shared
PHOTO = DATA / "photos" / "kite.jpg"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", list(FILES))
def test_a_converted_model_is_trained_further_and_needs_no_text_encoder(
    architecture, convert, ramctl, tmp_path
):
    """Nothing is learnt, so that the weights stay what they were."""
    given, _ = convert(architecture)
    rows = [{**row, "tags": ["couch", "person", "dog"]} for row in training_records()]
    for row in rows:
        row.pop("caption_tags")
    changes = [
        "preprocess.size=96", "model.encoder.window_size=3", "training.lr=0.0",
        "training.weight_decay=0.0", "training.distill=[]", "training.steps=2",
        "training.workers=0",
        *["training.alignment_weight=0.0"] * (architecture == "ram-plus"),
    ]  # fmt: skip
    done = ramctl(
        "finetune", write_records(tmp_path / "in.jsonl", rows), "--model", f"{given.path}/",
        "--out", "tuned", "--root", DATA, "--events", "e.jsonl", *settings(*changes),
    )  # fmt: skip
    assert done.returncode == 0 and "queries of" not in done.messages, done.messages
    bundle, losses = Bundle.open(tmp_path / "tuned"), read_rows(tmp_path / "e.jsonl")[0]["losses"]
    assert set(losses) == ({"tag"} if architecture == "ram-plus" else {"tag", "caption"})
    before = given.tensors()
    for name, value in bundle.tensors().items():
        assert value.shape == before[name].shape
        np.testing.assert_allclose(value, before[name], rtol=1e-3, atol=1e-3, err_msg=name)
    assert bundle.has("text/encoder.json") == (architecture != "tag2text")
    assert bundle.labels.tags == given.labels.tags


@pytest.fixture
def clip(tmp_path, clip_tokenizer):
    """A random CLIP text encoder of the authors' width."""
    return save_clip_text(tmp_path / "clip", clip_tokenizer, width=512)


def test_ram_plus_takes_ragged_descriptions_from_a_file(convert, ramctl, tmp_path, clip):
    bundle, _ = convert("ram-plus", "--text-encoder", clip)
    words = {
        "heron": ["a grey bird.", "long legs and a long beak.", "stands in water"],
        "st. bernard": ["a large dog."],
        "kettle": [],
    }
    (tmp_path / "words.json").write_bytes(orjson.dumps(words))
    done = ramctl(
        "tag", "-q", "--model", f"{bundle.path}/", "--labels", "words.json",
        "--threshold", 0, PHOTO,
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    scores = done.rows[0]["scores"]
    model, encoder = load_model(bundle), ClipTextEncoder(str(clip))
    size = bundle.preprocess.size
    pixels = Preprocess(bundle.preprocess)(load_photo(str(PHOTO), target=size))
    with torch.no_grad():
        encoded = model.encode(model.encoder(torch.from_numpy(pixels)[None]))
        for word, texts in words.items():
            # The authors' formula, a label by itself.
            rows = torch.from_numpy(encoder.embed_sentences(texts or [f"a photo of a {word}."]))
            photo = encoded.photo.feature[0] / encoded.photo.feature[0].norm()
            weights = (model.weighting.log_scale.exp() * (rows @ photo)).softmax(0)
            alone = model.tag_logits(encoded, (weights @ rows)[None, None]).total
            assert scores[word] == pytest.approx(float(alone.sigmoid()), abs=1e-4), word
