"""The gallery by itself: what it holds, and what it does in a real browser."""

import os

import pytest
from PIL import Image

from ramctl.apps import gallery as gallery_module
from ramctl.apps.gallery import Gallery
from ramctl.records.record import Record
from tests.support import gallery_names, gallery_photos, problem_of

ODD = "<b> 'n' \"q\" & </script> %23#co?.png"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "<b> 'n' \"q\" & <").mkdir()
    for name in (ODD, "plain.png"):
        Image.new("RGB", (300, 200), "red").save(tmp_path / name)
    return tmp_path


def tagged(folder, name, **fields):
    record = Record({"image": name}, base=folder)
    return record, {"image": name, "tags": ["a<b"], "scores": {"a<b": 0.5}} | fields


def page_of(page, *photos, messages=None):
    """The page of these photos."""
    gallery = Gallery()
    for photo in photos:
        gallery.add(*photo)
    messages = [] if messages is None else messages
    gallery.write(page, lambda record, fields: fields, messages.append)
    return page


def written(folder, rows):
    """A page of one photo for each `{tag: score}`, named by its number."""
    photos = []
    for number, scores in enumerate(rows):
        image = f"{number}.png"
        Image.new("RGB", (30, 20), (number * 40 % 256, number % 250, 0)).save(folder / image)
        photos.append(tagged(folder, image, tags=list(scores), scores=scores))
    return page_of(folder / "page.html", *photos)


def test_a_gallery_holds_tags_boxes_captions_and_a_link_with_a_photo_a_line(folder):
    boxes = {"a<b": [[0.1, 0.2, 0.6, 0.9], 0.5]}
    page_of(
        folder / "pages" / "page.html",
        tagged(folder, ODD, boxes=boxes, generated_captions=["a & b"]),
        tagged(folder, "plain.png", tags=["red", "sky"], scores={"sky": 0.25}),
    )
    page = (folder / "pages" / "page.html").read_text("utf-8")
    odd, plain = gallery_photos(folder / "pages" / "page.html")
    assert odd["thumbnail"].startswith("data:image/jpeg;base64,")
    del odd["thumbnail"]
    assert odd == {
        "image": ODD, "size": [240, 160], "tags": {"a<b": 0.5}, "boxes": boxes,
        "link": "../%3Cb%3E%20%27n%27%20%22q%22%20%26%20%3C/script%3E%20%2523%23co%3F.png",
        "captions": ["a & b"],
    }  # fmt: skip
    assert plain["tags"] == {"red": None, "sky": 0.25}
    assert page.startswith("<!doctype html>") and "http" not in page
    assert "<b>" not in page.partition("ndjson")[2].partition("</script>")[0]


def test_the_newest_photos_are_shown_in_the_order_of_their_records(folder, monkeypatch):
    monkeypatch.setattr(gallery_module, "MAX_PHOTOS", 3)
    photos = []
    for number, day in enumerate([3, 5, 1, 4, 2]):
        Image.new("RGB", (30, 20)).save(folder / f"{number}.png")
        os.utime(folder / f"{number}.png", (day, day))
        photos.append(tagged(folder, f"{number}.png"))
    assert gallery_names(page_of(folder / "page.html", *photos)) == ["0.png", "1.png", "3.png"]


def test_photos_that_are_gone_are_problems_of_their_records_and_damaged_ones_are_counted(folder):
    assert problem_of(Gallery().add, *tagged(folder, "gone.png")).code == "missing_image"
    (folder / "damaged.png").write_bytes(b"no photo")
    photos, messages = [tagged(folder, name) for name in ("damaged.png", "plain.png")], []
    page = page_of(folder / "page.html", *photos, messages=messages)
    assert gallery_names(page) == ["plain.png"]
    assert messages == [f"{page}: 1 photos cannot be read and are not shown"]


# In a real browser.

ROWS = [
    {"dog": 0.9, "grass": 0.3},
    {"Hot Dog": 0.8, "plate": 0.95},
    {"row house": 0.5, "grass": 0.7, "dog": 0.6},
    {"house": 0.4, "brown": 0.2},
    {},
]


def shown(browser):
    """The numbers of the photos that are shown, in order."""
    names = "[...document.querySelectorAll('figure b')].map((name) => name.textContent)"
    return [int(name.removesuffix(".png")) for name in browser.value(names)]


def search(browser, text):
    browser.value(f"byId('search').value = {text!r}")
    browser.value("byId('search').dispatchEvent(new Event('input'))")
    return shown(browser)


def test_photos_are_found_sorted_and_shown(browser, folder):
    browser.open(written(folder, ROWS))
    for text, found in {
        "": [0, 1, 2, 3, 4], "DOG, grass": [0, 2], '"hot dog"': [1], "dog -hot": [0, 2],
        'house -"row house"': [3], "zebra": [], "- ,": [0, 1, 2, 3, 4],
    }.items():  # fmt: skip
        assert search(browser, text) == found, text
        assert browser.value("byId('count').value") == f"{len(found)} of 5 photos"
    search(browser, "dog grass")
    browser.value("byId('order').value = -1")
    browser.value("byId('order').dispatchEvent(new Event('change'))")
    assert shown(browser) == [2, 0]  # by the less sure of both
    search(browser, "")
    states = []
    for _ in range(3):
        browser.value("document.querySelector('#common [data-tag=dog]').click()")
        states.append((browser.value("byId('search').value"), sorted(shown(browser))))
    assert states == [
        ('"dog"', [0, 2]), ('-"dog"', [1, 3, 4]), ("", [0, 1, 2, 3, 4]),
    ]  # fmt: skip

    boxes = {"a<b": [[0.1, 0.25, 0.6, 1.0], 0.5]}
    odd = tagged(folder, ODD, boxes=boxes, generated_captions=["a & b"])
    many = [tagged(folder, "plain.png")] * 200
    browser.open(page_of(folder / "page.html", odd, *many))
    browser.look(390)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.value("document.querySelector('figcaption').textContent") == f"{ODD}a & ba<b"
    browser.wait("document.images[0].naturalWidth === 240")
    browser.value("document.querySelector('.box').classList.add('shown')")
    assert browser.part("img", ".box") == pytest.approx([0.1, 0.25, 0.6, 1.0], abs=0.01)
    n_shown = "document.querySelectorAll('figure').length"
    assert 60 <= browser.value(n_shown) < 201
    browser.wait(f"scrollTo(0, document.body.scrollHeight), {n_shown} === 201")
    original = browser.value("document.querySelector('a.photo').href")
    browser.do("Page.navigate", url=original)
    browser.wait("document.images[0]?.naturalWidth === 300")
