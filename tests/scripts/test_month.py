"""scripts/month.py: a collector's month with exiftool, Chromium and darktable."""

import json
import shutil

import month
import pytest

from tests.pages.browser import PROGRAM


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.skipif(not (shutil.which("exiftool") and PROGRAM), reason="needs exiftool, Chromium")
def test_nothing_of_hers_is_lost_nothing_refused_returns_and_everything_is_found(
    shared, tmp_path, monkeypatch, capsys
):
    photos = shared / "data" / "photos"
    records = [json.loads(line) for line in (photos / "flickr8k-test.jsonl").open()]
    for record in records:
        record["image"] = f"{photos}/{record['image']}"
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(record) + "\n" for record in records[:500]))
    monkeypatch.setattr("sys.argv", ["month.py", str(few), str(tmp_path / "month")])
    assert month.main() == 0, capsys.readouterr().out
    out = capsys.readouterr().out
    assert "20 tags newly refused" in out and "10 tags newly refused" in out
    assert "by exiftool" in out or "refused tags that were back removed again" in out
