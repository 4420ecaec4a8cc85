"""`ramctl tag` with the authors' models: what it loads, and RAM++'s descriptions of any number."""

import json
import os
import subprocess
import sys

import numpy as np
import orjson
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_model
from ramctl.text.clip import ClipTextEncoder
from tests.conftest import REPOSITORY
from tests.training.conftest import DATA

PHOTO = DATA / "photos" / "kite.jpg"
LOOK = """
import sys
from ramctl import Tagger
(found,) = Tagger.from_pretrained(sys.argv[1], runtime="torch", threshold=0).tag([sys.argv[2]])
print(len(found.tags), sorted({"transformers", "tokenizers", "spacy"} & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.shared
def test_tagging_loads_neither_tokenizer_nor_captioning_branch(files, ramctl, tmp_path):
    done = ramctl("convert", *files("ram")[0])
    assert done.returncode == 0, done.stderr
    tokenizer = tmp_path / "bundle" / "tokenizer.json"
    tokenizer.write_bytes(b"\0" * tokenizer.stat().st_size)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, f"{tmp_path / 'bundle'}/", str(PHOTO)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.stdout == "24 []\n", done.stderr
    model = load_model(Bundle.open(tmp_path / "bundle"), captioning=False)
    assert model.captioning is None


@pytest.fixture
def clip(tmp_path):
    """A random CLIP text encoder of the authors' width."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    folder = tmp_path / "clip"
    folder.mkdir()
    signs = [chr(code) for code in range(ord("a"), ord("z") + 1)] + ["."]
    pieces = signs + [sign + "</w>" for sign in signs] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=512, max_position_embeddings=77,
        bos_token_id=len(pieces) - 2, eos_token_id=len(pieces) - 1,
    )  # fmt: skip
    CLIPTextModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.mark.shared
def test_ram_plus_takes_ragged_descriptions_from_a_file(files, ramctl, tmp_path, clip):
    done = ramctl("convert", *files("ram-plus")[0], "--text-encoder", clip)
    assert done.returncode == 0, done.stderr
    words = {
        "heron": ["a grey bird.", "long legs and a long beak.", "stands in water"],
        "st. bernard": ["a large dog."],
        "kettle": [],
    }
    (tmp_path / "words.json").write_bytes(orjson.dumps(words))
    done = ramctl(
        "tag", "-q", "--model", f"{tmp_path / 'bundle'}/", "--labels", "words.json",
        "--threshold", 0, "--runtime", "torch", PHOTO,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    bundle = Bundle.open(tmp_path / "bundle")
    model, encoder = load_model(bundle), ClipTextEncoder(str(clip))
    pixels = torch.from_numpy(photo_pixels(bundle))[None]
    with torch.no_grad():
        encoded = model.encode(model.encoder(pixels))
        for word, texts in words.items():
            # The authors' formula, a label by itself.
            rows = torch.from_numpy(encoder.embed_sentences(texts or [f"a photo of a {word}."]))
            photo = encoded.global_feature[0] / encoded.global_feature[0].norm()
            weights = (model.weighting.log_scale.exp() * (rows @ photo)).softmax(0)
            alone = model.tag_logits(encoded, (weights @ rows)[None, None])
            assert scores[word] == pytest.approx(float(alone.sigmoid()), abs=1e-4), word


def photo_pixels(bundle: Bundle) -> np.ndarray:
    from ramctl.model.preprocess import Preprocess
    from ramctl.photos.decoding import load_photo

    config = bundle.preprocess
    return Preprocess(config)(load_photo(str(PHOTO), target=config.size))


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
            logits = model.tag_logits(encoded, prepared)
    torch.testing.assert_close(logits[:, :24], io["eval.logits"], rtol=1e-4, atol=1e-4)
    everything = rows.numel() * rows.element_size()
    assert 0 < largest.bytes < everything / 15
