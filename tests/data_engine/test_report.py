"""The page of a cleaning by itself: what it counts and shows, every name escaped."""

import re
from types import SimpleNamespace

import numpy as np
from PIL import Image

from ramctl.data_engine.cluster import NOT_PREDICTED, OUTLIER, Decision
from ramctl.data_engine.region_store import REGION
from ramctl.data_engine.report import cleaning_page
from ramctl.labels import Label, LabelSystem
from ramctl.records.record import Record

ODD = "<b> 'n' \"q\" & co.png"
LABELS = LabelSystem([Label("x"), Label("a<b"), Label("c", "scene")])


def decision(label, row, cluster, reason) -> Decision:
    distance = np.full(len(row), 0.75, np.float32)
    return Decision(
        label, np.array(row), np.array(cluster, np.uint8), distance, np.array(reason, np.uint8)
    )


def test_the_page_counts_all_and_shows_what_can_be_read(tmp_path):
    for name in (ODD, "plain.png"):
        Image.new("RGB", (300, 200), "red").save(tmp_path / name)
    names = [ODD, "gone.png", "plain.png", *["gone.png"] * 6]
    records = [Record({"image": name, "tags": ["a<b", "c"]}, base=tmp_path) for name in names]
    regions = np.zeros(13, REGION)
    regions["input"][:9] = range(9)
    regions["box"], regions["score"] = [0.0, 0.25, 0.5, 1.0], 0.125
    index = SimpleNamespace(
        regions=lambda rows: regions[rows],
        shards_of=lambda rows: np.zeros(len(rows), np.int64),
        shards=[SimpleNamespace(inputs=lambda: iter(records))],
    )
    reasons = [OUTLIER, OUTLIER, 0, NOT_PREDICTED, 0, 0, 0, 0, 0]
    changed = decision(1, range(9), [0] * 6 + [1] * 3, reasons)
    same = decision(2, range(9, 13), [0] * 4, [0] * 4)
    page = cleaning_page(index, [same, changed], LABELS, 0)
    assert "2 labels, 13 regions; 3 regions\n(23.1%)" in page
    assert page.count("<section") == 1 and page.count('href="#label-1"') == 1
    assert page.count("<figure") == page.count("data:image/jpeg;base64,") == 2
    assert 'style="left:0.0%;top:25.0%;width:50.0%;height:75.0%"' in page.replace("%;\n", "%;")
    assert "0.12 · 0.75" in page and "removed: 3" in page and "kept: 6" in page
    assert "clusters of 6, 3" in page and "a<b" not in page and "http" not in page
    cells = re.findall(r'class="number">(\d+)<', page)
    assert cells == ["9", "2", "1", "0", "4", "0", "0", "0"]
