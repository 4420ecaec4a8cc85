"""`ramctl tag` with the authors' models: what it loads, and RAM++'s descriptions of any number."""

import os
import subprocess
import sys

import orjson
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ramctl.checkpoints.clip import ClipTextEncoder
from ramctl.checkpoints.load import load_model
from ramctl.model.preprocess import Preprocess
from ramctl.photos.decoding import load_photo
from tests.conftest import REPOSITORY
from tests.peers.conftest import clip_tokenizer
from tests.peers.support import save_clip_text
from tests.training.conftest import DATA

__all__ = ["clip_tokenizer"]

PHOTO = DATA / "photos" / "kite.jpg"
LOOK = """
import sys
from ramctl import Tagger
(found,) = Tagger.from_pretrained(sys.argv[1], runtime="torch", threshold=0).tag([sys.argv[2]])
print(len(found.tags), sorted({"transformers", "tokenizers", "spacy"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.shared
def test_tagging_loads_neither_tokenizer_nor_captioning_branch(convert):
    bundle, _ = convert("ram")
    tokenizer = bundle.path / "tokenizer.json"
    tokenizer.write_bytes(b"\0" * tokenizer.stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, f"{bundle.path}/", str(PHOTO)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stdout == "24 []\n", done.stderr
    assert load_model(bundle, captioning=False).captioning is None


@pytest.fixture
def clip(tmp_path, clip_tokenizer):
    """A random CLIP text encoder of the authors' width."""
    return save_clip_text(tmp_path / "clip", clip_tokenizer, width=512)


@pytest.mark.shared
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


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            given = [a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)]
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in given:
                    self.bytes = max(self.bytes, storage.nbytes())
        return out


@pytest.mark.shared
def test_weighing_descriptions_makes_nothing_of_the_size_of_all_of_them(ram_plus):
    model, io = ram_plus.model, ram_plus.io
    rows = model.labels().repeat(40, 1, 1)  # (960, 51, 512): 100 MB, a fifth of the full size
    with torch.inference_mode():
        encoded = model.encode(model.encoder(io["image"]))
        prepared = model.prepare_labels(rows)
        with Largest() as largest:
            logits = model.tag_logits(encoded, prepared).total
    torch.testing.assert_close(logits[:, :24], io["eval.logits"], rtol=1e-4, atol=1e-4)
    everything = rows.numel() * rows.element_size()
    assert 0 < largest.bytes < everything / 15
