"""Every number of the authors' presets, against `official_presets.tsv`.

Its last column says where a number comes from: `file:line` at commit 7cb804a of
github.com/xinyu1205/recognize-anything, a part of the paper, or `ours:` with the reason.
"""

import csv
import json
from pathlib import Path

import pytest
import torch

from ramctl.model.encoder import ImageEncoder
from ramctl.model.preset import finetuning_preset, load_preset, write_table

with Path(__file__).with_name("official_presets.tsv").open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
NAMES = [name for name in ROWS[0] if name not in ("key", "source")]


def flat(table: dict, prefix: str = "") -> dict[str, object]:
    """Nested tables as one, with dotted keys."""
    values: dict[str, object] = {}
    for key, value in table.items():
        nested = flat(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        values |= {prefix + key: value} if nested is None else nested
    return values


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_the_one_in_the_table(name):
    expected = {row["key"]: json.loads(row[name]) for row in ROWS if row[name] != "-"}
    assert flat(write_table(load_preset(name))) == expected


# ram/configs/swin/config_swinB_224.json:5-8, and the same for L and 384; ram/models/ram.py:60, 66.
@pytest.mark.parametrize(
    ("name", "width", "heads"),
    [("ram-swin-b", 128, [4, 8, 16, 32]), ("ram-swin-l", 192, [6, 12, 24, 48])],
)
def test_the_named_backbone_has_the_authors_sizes(name, width, heads):
    preset = load_preset(name)
    for stage, size, window in ((preset, 224, 7), (finetuning_preset(preset), 384, 12)):
        assert stage.preprocess.size == size
        with torch.device("meta"):
            swin = ImageEncoder(stage.model.encoder, size).backbone
        blocks = [block for layer in swin.layers for block in layer.blocks]
        assert swin.patch_embed.patch_size == (4, 4)
        assert swin.patch_embed.proj.out_channels == width
        assert [len(layer.blocks) for layer in swin.layers] == [2, 2, 18, 2]
        assert [layer.blocks[0].attn.num_heads for layer in swin.layers] == heads
        assert {block.window_size[0] for block in blocks} == {window}
        assert {block.mlp.fc1.out_features // block.mlp.fc1.in_features for block in blocks} == {4}
        # ram/models/swin_transformer.py:519: stochastic depth grows evenly with the blocks.
        rates = [getattr(block.drop_path1, "drop_prob", 0.0) or 0.0 for block in blocks]
        assert rates == pytest.approx([0.1 * i / 23 for i in range(24)], abs=1e-6)
