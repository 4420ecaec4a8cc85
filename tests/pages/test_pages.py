"""The pages by themselves: one file, nothing from elsewhere, every name escaped."""

import re

import pytest
from PIL import Image

from ramctl.errors import RecordProblem
from ramctl.pages.gallery import open_gallery
from ramctl.records.record import Record

ODD = "<b> 'n' \"q\" & co.png"
ESCAPED = "&lt;b&gt; &#39;n&#39; &#34;q&#34; &amp; co.png"


@pytest.fixture
def folder(tmp_path):
    for name in (ODD, "plain.png"):
        Image.new("RGB", (300, 200), "red").save(tmp_path / name)
    return tmp_path


def tagged(folder, name, **fields):
    record = Record({"image": name}, base=folder)
    return record, {"image": name, "tags": ["a<b"], "scores": {"a<b": 0.5}} | fields


def shown(page) -> list[str]:
    return re.findall(r"<figcaption><b>(.*?)</b>", page.read_text("utf-8"))


def test_a_gallery_shows_tags_boxes_and_captions_with_a_figure_a_line(folder):
    with open_gallery(folder / "page.html") as gallery:
        gallery(
            *tagged(
                folder,
                ODD,
                boxes={"a<b": [[0.1, 0.2, 0.6, 0.9], 0.5]},
                generated_captions=["a & b"],
            )
        )
    page = (folder / "page.html").read_text("utf-8")
    (figure,) = (line for line in page.splitlines() if line.startswith("<figure>"))
    assert figure.endswith("</figure>")
    assert 'width="240" height="160"' in figure
    assert f"<b>{ESCAPED}</b><i>a &amp; b</i>" in figure
    assert '<button data-tag="a&lt;b">a&lt;b<small>0.50</small></button>' in figure
    assert 'style="left:10.0%;top:20.0%;width:50.0%;height:70.0%"' in figure
    assert page.startswith("<!doctype html>") and "http" not in page


def test_figures_of_an_older_page_stay_unless_shown_anew(folder):
    path = folder / "page.html"
    with open_gallery(path) as gallery:
        for name in (ODD, "plain.png"):
            gallery(*tagged(folder, name))
    # html.escape, which wrote earlier pages, spells quotes in another way.
    older = path.read_text("utf-8").replace("&#39;", "&#x27;").replace("&#34;", "&quot;")
    path.write_text(older, "utf-8")
    with open_gallery(path, add=True) as gallery:
        gallery(*tagged(folder, ODD))
    assert shown(path) == ["plain.png", ESCAPED]
    with open_gallery(path) as gallery:
        gallery(*tagged(folder, "plain.png"))
    assert shown(path) == ["plain.png"]


def test_a_photo_that_is_gone_is_a_problem_of_its_record(folder):
    with open_gallery(folder / "page.html") as gallery, pytest.raises(RecordProblem) as caught:
        gallery(*tagged(folder, "gone.png"))
    assert caught.value.code == "missing_image"
    assert shown(folder / "page.html") == []


def test_a_page_that_fails_leaves_the_older_one(folder):
    path = folder / "page.html"
    path.write_text("older")
    with pytest.raises(RuntimeError), open_gallery(path):
        raise RuntimeError
    assert path.read_text() == "older"
    assert not list(folder.glob("*.part"))
