"""A bundle's `text` folder: what one encoder saves or is named, the reader gives back."""

import subprocess
import sys

import numpy as np
import orjson
import pytest
from text_distillation import build_tokenizer, quantise_table

from ramctl.checkpoints.clip import ClipTextEncoder
from ramctl.checkpoints.static_table import read_text_encoder
from ramctl.errors import UsageProblem

LOOK = """
import sys
from pathlib import Path
from ramctl.checkpoints.static_table import read_text_encoder
print(read_text_encoder(Path(sys.argv[1])).name)
print(sorted({"torch", "transformers", "tokenizers"} & set(sys.modules)))
"""


def look(folder) -> str:
    """What an encoder is called, and what reading it imported."""
    command = [sys.executable, "-c", LOOK, folder]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_clip_is_saved_and_read_by_its_name_and_loads_nothing(tmp_path):
    ClipTextEncoder("hf://owner/clip", "ram-plus").save(tmp_path / "text")
    assert read_text_encoder(tmp_path / "text") == ClipTextEncoder("hf://owner/clip", "ram-plus")
    content = (tmp_path / "text" / "encoder.json").read_bytes()
    assert content == (
        b'{\n  "kind": "clip",\n  "name": "hf://owner/clip",\n  "prompts": "ram-plus"\n}\n'
    )
    assert look(tmp_path / "text") == "the CLIP text encoder hf://owner/clip\n[]\n"


def test_a_table_is_read_with_the_name_of_its_bundle_and_cut_to_a_width(tmp_path):
    tokenizer = build_tokenizer({"[UNK]": 0, "red": 1, "bus": 2})
    rows = np.array([[9, 9], [1, 0], [3, 4]], np.float32)
    quantise_table(rows, np.eye(3, 2), tokenizer.to_str()).save(tmp_path / "model" / "text")
    table = read_text_encoder(tmp_path / "model" / "text")
    assert look(tmp_path / "model" / "text") == f"{table.name}\n[]\n"
    assert table.name == f"the static table of {tmp_path / 'model'}"
    np.testing.assert_allclose(table.embed_sentences(["bus"]), [[0.6, 0.8]], atol=0.01)
    narrow = table.cut_to(1)
    assert narrow.embed_names(["bus"]).tolist() == [[1.0]]


@pytest.fixture
def name_encoder(tmp_path):
    """Opens the text encoder that a bundle names so."""
    (tmp_path / "text").mkdir()

    def write(**facts):
        (tmp_path / "text" / "encoder.json").write_bytes(orjson.dumps(facts))
        return read_text_encoder(tmp_path / "text")

    return write


def test_a_clip_that_is_not_there_is_missed_with_the_option_that_names_one(name_encoder):
    encode = name_encoder(kind="clip", name="no-such-clip", prompts="ram-plus")
    with pytest.raises(UsageProblem, match=r"no-such-clip: .*; `convert --text-encoder DIR` takes"):
        encode.embed_names(["dog"])


def test_ram_plus_puts_a_bare_name_into_its_fixed_sentence(name_encoder, clip_folder):
    encode = name_encoder(kind="clip", name=str(clip_folder), prompts="ram-plus")
    for name in ("dog", "st. bernard", "co."):
        sentence = encode.embed_sentences([f"a photo of a {name}."])
        np.testing.assert_allclose(encode.embed_names([name]), sentence, atol=1e-6)
