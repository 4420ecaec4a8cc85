"""Pages of records with any text in them hold that text, and run nothing of it."""

from collections.abc import Callable

import pytest
from PIL import Image

from ramctl.records.record import Record
from tests.fuzz.damage import survive
from tests.pages.test_gallery import page_of as page_of_photos
from tests.support import gallery_photos

SEEDS = [
    b"dog", b"a </script> & <b onload='x()'>", b"<!--<script>", b"]]>\\u003c/script>\xe2\x80\xa8",
    "犬 🐕 &lt;img src=x&gt;".encode(),
]  # fmt: skip


@pytest.fixture
def photo(tmp_path) -> str:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    return "a.png"


def n_elements(page: str) -> int:
    """What the page itself is made of: data adds none."""
    lower = page.lower()
    return sum(lower.count(start) for start in ("<script", "</script", "<!--", "<img", "<b"))


def survive_as_text(page_of: Callable[[str], str], name: str) -> None:
    """Damaged texts give pages that are made of what a page of a plain text is made of."""
    own = n_elements(page_of("plain"))

    def read(data: bytes) -> None:
        assert n_elements(page_of(data.decode("utf-8", "replace"))) == own

    survive(read, SEEDS, name)


def test_galleries(tmp_path, photo):
    def page_of(text: str) -> str:
        path = tmp_path / "page.html"
        fields = {"image": photo, "tags": [text], "scores": {text: 0.5}}
        fields["generated_captions"] = [text]
        page_of_photos(path, (Record({"image": photo}, base=tmp_path), fields))
        (shown,) = gallery_photos(path)
        assert (shown["tags"], shown["captions"]) == ({text: 0.5}, [text])
        return path.read_text("utf-8")

    survive_as_text(page_of, "galleries")
