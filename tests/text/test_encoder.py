"""A bundle's `text` folder: what one encoder saves, the reader gives back."""

import subprocess
import sys

import numpy as np
from text_distillation import build_tokenizer, quantise_table

from ramctl.text.clip import ClipTextEncoder
from ramctl.text.encoder import read_text_encoder

LOOK = """
import sys
from pathlib import Path
from ramctl.text.encoder import read_text_encoder
print(read_text_encoder(Path(sys.argv[1])).name)
print(sorted({"torch", "transformers", "tokenizers"} & set(sys.modules)))
"""


def test_a_folder_without_an_encoder_has_none(tmp_path):
    assert read_text_encoder(tmp_path / "text") is None


def test_a_clip_is_saved_and_read_by_its_name_and_loads_nothing(tmp_path):
    ClipTextEncoder("hf://owner/clip", "ram-plus").save(tmp_path / "text")
    assert read_text_encoder(tmp_path / "text") == ClipTextEncoder("hf://owner/clip", "ram-plus")
    content = (tmp_path / "text" / "encoder.json").read_bytes()
    assert content == (
        b'{\n  "kind": "clip",\n  "name": "hf://owner/clip",\n  "prompts": "ram-plus"\n}\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", LOOK, tmp_path / "text"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "the CLIP text encoder hf://owner/clip\n[]\n"


def test_a_table_is_read_with_the_name_of_its_bundle_and_cut_to_a_width(tmp_path):
    tokenizer = build_tokenizer({"[UNK]": 0, "red": 1, "bus": 2})
    rows = np.array([[9, 9], [1, 0], [3, 4]], np.float32)
    quantise_table(rows, np.eye(3, 2), tokenizer.to_str()).save(tmp_path / "model" / "text")
    table = read_text_encoder(tmp_path / "model" / "text")
    assert table.name == f"the static table of {tmp_path / 'model'}"
    np.testing.assert_allclose(table.embed_sentences(["bus"]), [[0.6, 0.8]], atol=0.01)
    narrow = table.cut_to(1)
    assert narrow.embed_names(["bus"]).tolist() == [[1.0]]
    assert narrow.fingerprint != table.fingerprint
