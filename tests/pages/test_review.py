"""The review by itself: what it holds, and what it does in a real browser."""

import json

import pytest
from PIL import Image

from ramctl.pages.review_page import ADDED, KEPT, REMOVED, Judged, Pictured, review_page
from ramctl.records.record import Record
from tests.support import page_data

ODD = "<b> 'n' \"q\" & co.png"
BYTES = {"bytes": "/w=="}
BOX = [0.1, 0.25, 0.6, 1.0]


def written(folder, judged, totals=None, name="made of these records", **options):
    """The page as a file of its own."""
    counted = {own.tag: {ADDED: 0, REMOVED: 0, KEPT: 0} for own in judged}
    for own in judged:
        counted[own.tag][own.state] += 1
    path = folder / "review.html"
    path.write_text("".join(review_page(judged, totals or counted, name, **options)), "utf-8")
    return path


@pytest.fixture
def pictured(tmp_path):
    """Makes records of one photo each; the one called `gone.png` cannot be read."""

    def make(image, *captions, **fields):
        if isinstance(image, str) and image != "gone.png":
            Image.new("RGB", (300, 200), "red").save(tmp_path / image)
        return Pictured(Record({"image": image}, base=tmp_path), captions, **fields)

    return make


@pytest.fixture
def judged(pictured):
    """Two tags on three photos: the least doubtful first."""
    odd, plain = pictured(ODD, "a </script> & b", generated=["made up"]), pictured("plain.png")
    removed = {"reason": "outlier", "box": BOX, "score": 0.8123, "distance": 0.5}
    return [
        Judged("a<b", "object", KEPT, -0.5, pictured("gone.png"), ["parsed"], score=0.9, box=BOX),
        Judged("a<b", "object", ADDED, -0.25, plain, ["generated-tag"], score=0.4, box=BOX),
        Judged("a<b", "object", REMOVED, 0.3, odd, ["parsed"], **removed),
        Judged("red", "attribute", ADDED, -0.4, plain, ["generated-tag"], score=0.4),
    ]


def test_the_page_holds_everything_sorted_by_doubt_and_nothing_from_elsewhere(tmp_path, judged):
    ticks = []
    path = written(tmp_path, judged, jobs=2, tick=ticks.append)
    page, data = path.read_text("utf-8"), page_data(path)
    assert [one["tag"] for one in data["tags"]] == ["a<b", "red"]
    assert data["tags"][0] == {"tag": "a<b", "kind": "object", "added": 1, "removed": 1, "kept": 1}
    entries = [(one["tag"], one["state"]) for one in data["entries"]]
    assert entries == [(0, REMOVED), (0, ADDED), (0, KEPT), (1, ADDED)]
    first = data["entries"][0]
    assert data["records"][first["record"]] == {
        "image": ODD, "captions": ["a </script> & b"], "generated": ["made up"],
        "photo": data["records"][first["record"]]["photo"],
    }  # fmt: skip
    assert first["box"] == BOX and (first["reason"], first["score"]) == ("outlier", 0.8123)
    assert page.count("data:image/jpeg;base64,") == 2 and ticks == [1, 1, 1]
    assert "a </script>" not in page and "http" not in page
    assert "has removed 1 tag, and 2 that" in page and "All are here" in page


def test_a_page_of_a_part_says_so(tmp_path, judged):
    totals = {"a<b": {REMOVED: 7, ADDED: 1}, "red": {ADDED: 1}, "not shown": {ADDED: 30}}
    page = written(tmp_path, judged, totals).read_text("utf-8")
    assert "has removed 7 tags, and 32 that" in page
    assert "The 4 most doubtful are here" in page


def cards(browser):
    """The cards on the screen: tag, state, what is pressed."""
    return browser.value(
        """[...document.querySelectorAll("#cards figure")].map((card) =>
             [".state b", ".state span", "[aria-pressed=true]"].map((part) =>
               (card.querySelector(part) || {textContent: ""}).textContent))"""
    )


def current(browser):
    return browser.value("document.activeElement.getAttribute('aria-label')")


def progress(browser):
    return browser.value("document.getElementById('progress').value")


def wait_for(browser, expected):
    """Return when the progress is the expected one."""
    browser.wait(f"document.getElementById('progress').value === {json.dumps(expected)}")


def open_after(browser, path, expected):
    """Open a page with the expected progress; what was kept just before may not be there yet."""
    for _ in range(50):
        browser.open(path)
        if progress(browser) == expected:
            return
        browser.open("about:blank")
    raise AssertionError(f"never {expected}")


def downloaded(browser, folder):
    """The decisions that the page's button saves."""
    path = folder / "decisions.jsonl"
    path.unlink(missing_ok=True)
    browser.value("document.getElementById('save').click()")
    while not path.exists() or not path.read_bytes().endswith(b"\n"):
        browser.value("0")
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_entry_is_shown_with_its_photo_region_and_captions(browser, tmp_path, judged):
    browser.open(written(tmp_path, judged))
    assert cards(browser) == [
        ["a<b", "removed: outlier", ""], ["a<b", "added", ""], ["a<b", "kept", ""],
        ["red", "added", ""],
    ]  # fmt: skip
    titles = "[...document.querySelectorAll('#cards h2')].map((one) => one.textContent)"
    assert browser.value(titles) == ["a<b", "red"]
    first = "document.querySelector('#cards figure')"
    browser.wait(f"{first}.querySelector('img').naturalWidth === 240")
    assert "a </script> & b" in browser.value(f"{first}.textContent")
    assert "made up" in browser.value(f"{first}.querySelector('.generated').textContent")
    assert browser.part("#cards img", "#cards .box") == pytest.approx(BOX, abs=0.004)
    last = "[...document.querySelectorAll('#cards figure')].at(-1)"
    assert browser.value(f"{last}.querySelector('.box').offsetWidth") == 0
    assert "no region" in browser.value(f"{last}.textContent")
    assert "can no longer be read" in browser.value("document.getElementById('cards').textContent")


def test_a_person_decides_by_keyboard_and_takes_it_back(browser, tmp_path, judged):
    browser.open(written(tmp_path, judged))
    browser.press("a", "r", "r")
    assert [pressed for *_, pressed in cards(browser)] == [
        "Accept(remove)", "Refuse(remove)", "Refuse(remove)", "",
    ]  # fmt: skip
    assert current(browser) == "red: added" and progress(browser) == "3 of 4 decided"
    browser.press("u", "k", "r", "ArrowLeft", "a", "ArrowRight", "p", "j", "n", "a")
    assert progress(browser) == "3 of 4 decided"
    assert downloaded(browser, tmp_path) == [
        {"image": ODD, "tag": "a<b", "verdict": "remove"},
        {"image": "plain.png", "tag": "a<b", "verdict": "keep"},
        {"image": "plain.png", "tag": "red", "verdict": "keep"},
    ]
    browser.press("u", "u", "u", "u", "u", "u", "u")
    assert progress(browser) == "0 of 4 decided"
    assert browser.value("document.getElementById('save').disabled")


def test_keys_do_nothing_where_text_is_chosen_or_with_a_modifier(browser, tmp_path, judged):
    browser.open(written(tmp_path, judged))
    browser.value("document.getElementById('tag').focus()")
    browser.press("a", "r")
    browser.value("document.activeElement.blur()")
    browser.do("Input.dispatchKeyEvent", type="keyDown", key="r", modifiers=2)
    assert progress(browser) == "0 of 4 decided"


def test_buttons_decide_and_take_back_and_filters_choose(browser, tmp_path, judged):
    browser.open(written(tmp_path, judged))
    accept = "document.querySelectorAll('[data-choice=accept]')"
    browser.value(f"{accept}[1].click()")
    assert cards(browser)[1][2] == "Accept(keep)"
    change = "document.getElementById('filters').dispatchEvent(new Event('change'))"
    browser.value(f"document.getElementById('open').checked = true; {change}")
    assert [state for _, state, _ in cards(browser)] == ["removed: outlier", "kept", "added"]
    browser.value(f"document.getElementById('tag').value = '1'; {change}")
    assert cards(browser) == [["red", "added", ""]]
    browser.value(f"document.getElementById('state').value = 'kept'; {change}")
    assert cards(browser) == []
    browser.press("a", "j", "ArrowDown", "n", "p")
    browser.press("u")
    assert progress(browser) == "0 of 4 decided" and len(cards(browser)) == 4
    browser.value(f"{accept}[1].click(); {accept}[1].click()")
    assert progress(browser) == "0 of 4 decided"


def test_decisions_outlive_the_page_and_are_those_of_its_records(browser, tmp_path, judged):
    path = written(tmp_path, judged)
    browser.open(path)
    browser.press("a", "r")
    assert progress(browser) == "2 of 4 decided"
    # Another cleaning of the same records shows other tags; nothing that was decided is lost.
    again = written(tmp_path, judged[:2] + judged[3:]).rename(tmp_path / "again.html")
    open_after(browser, again, "1 of 3 decided")
    assert len(downloaded(browser, tmp_path)) == 2
    browser.open(written(tmp_path, judged, name="other records").rename(tmp_path / "other.html"))
    assert progress(browser) == "0 of 4 decided"


def test_two_tabs_decide_together(browser, tmp_path, judged):
    path = written(tmp_path, judged)
    browser.open(path)
    browser.press("a")
    with browser.another_tab():
        open_after(browser, path, "1 of 4 decided")
        browser.press("j", "r")
    wait_for(browser, "2 of 4 decided")
    pressed = [pressed for *_, pressed in cards(browser)]
    assert pressed == ["Accept(remove)", "Refuse(remove)", "", ""]
    browser.press("u", "u")
    assert progress(browser) == "0 of 4 decided"


def test_earlier_decisions_are_shown_and_can_be_changed(browser, tmp_path, pictured):
    photo = pictured("plain.png")
    judged = [
        Judged("sky", "object", REMOVED, 0.2, photo, reason="decision", verdict="remove"),
        Judged("sea", "object", ADDED, 0.1, photo, verdict="keep"),
    ]
    browser.open(written(tmp_path, judged))
    assert [pressed for *_, pressed in cards(browser)] == ["Accept(remove)", "Accept(keep)"]
    browser.press("r")
    assert {one["tag"]: one["verdict"] for one in downloaded(browser, tmp_path)} == {
        "sky": "keep", "sea": "keep",
    }  # fmt: skip
    browser.press("u")
    assert [pressed for *_, pressed in cards(browser)] == ["Accept(remove)", "Accept(keep)"]


def test_a_name_that_is_not_utf8_comes_back_as_it_was(browser, tmp_path, pictured):
    browser.open(written(tmp_path, [Judged("sky", "object", ADDED, 0, pictured(BYTES))]))
    browser.press("r")
    (decision,) = downloaded(browser, tmp_path)
    assert decision == {"image": BYTES, "tag": "sky", "verdict": "remove"}


def many(pictured, n):
    photos = [pictured(f"{number}.png", f"caption {number}") for number in range(50)]
    return [
        Judged(f"tag {number // 50}", "object", ADDED, -number / n, photos[number % 50], box=BOX)
        for number in range(n)
    ]


def test_twenty_thousand_entries_are_a_page_at_a_time(browser, tmp_path, pictured):
    browser.open(written(tmp_path, many(pictured, 20_000)))
    assert len(cards(browser)) == 60
    assert browser.value("document.getElementById('page').value") == "page 1 of 334"
    browser.press("k", *["j"] * 60, "a")
    assert browser.value("document.getElementById('page').value") == "page 2 of 334"
    assert progress(browser) == "1 of 20000 decided"
    browser.press("k", "k", "k")
    assert browser.value("document.getElementById('page').value") == "page 1 of 334"
    browser.press("n")
    assert current(browser) == "tag 2: added"
    browser.value("document.getElementById('forth').click()")
    browser.press("p")
    assert current(browser) == "tag 1: added"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_current_is_seen_and_the_page_fits_a_phone(browser, tmp_path, judged, scheme):
    browser.open(written(tmp_path, judged))
    browser.look(390, scheme=scheme)
    browser.press("ArrowDown", "ArrowDown", "ArrowUp")
    assert current(browser) == "a<b: added"
    assert browser.value("document.documentElement.scrollWidth") <= 390
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    marked = "[...document.querySelectorAll('[aria-current=true]')]"
    assert browser.value(f"{marked}.length === 1 && {marked}[0] === document.activeElement")
    header = "document.querySelector('header').getBoundingClientRect().bottom"
    assert browser.value(f"document.activeElement.getBoundingClientRect().top >= {header}")
    background = browser.value("getComputedStyle(document.querySelector('header')).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
