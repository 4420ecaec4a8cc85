"""Tags are judged on a page, and what was decided holds for every output."""

import json
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from ramctl.export.sidecar_merge import SUBJECT
from ramctl.export.xmp_document import XmpDocument
from ramctl.records.verdicts import Verdicts
from tests.pages.test_review import downloaded
from tests.support import page_data, write_records

RECORDS = [
    {"image": "a.jpg", "tags": ["dog", "red"], "scores": {"dog": 0.9, "red": 0.7}, "mine": 1},
    {"image": "b.jpg", "tags": ["dog", "red"], "scores": {"dog": 0.5, "red": 0.8}},
    {"image": "c.jpg", "tags": ["red", "sky"], "scores": {"red": 0.75}, "captions": ["a sky"]},
]
REFUSED = {"image": "b.jpg", "tag": "red", "verdict": "remove"}
KEPT = {"image": "c.jpg", "tag": "sky", "verdict": "keep"}


@pytest.fixture
def export(command):
    """Runs `ramctl export` on RECORDS in a folder with their photos and two decisions."""
    for record in RECORDS:
        Image.new("RGB", (40, 30), "red").save(record["image"])
    write_records(Path("tags.jsonl"), RECORDS)
    write_records(Path("decided.jsonl"), [REFUSED, KEPT])
    return partial(command, "export", "tags.jsonl")


def keywords(sidecar: Path) -> list[str]:
    return XmpDocument(sidecar.read_bytes()).items(SUBJECT.property)


def test_tags_with_most_expected_mistakes_come_first_and_of_each_the_lowest_scores(export, browser):
    export("--review", "page.html")
    browser.open(Path("page.html").absolute())
    show(browser, **BY_TAG)
    # red: 0.3 + 0.2 + 0.25, dog: 0.1 + 0.5, sky: half a tag.
    texts = "[...document.querySelectorAll('figcaption')].map((one) => one.innerText.split(/\\s+/))"
    assert [(words[0], words[words.index("model") + 2]) for words in browser.value(texts)] == [
        ("red", "0.70"), ("red", "0.75"), ("red", "0.80"), ("dog", "0.50"), ("dog", "0.90"),
        ("sky", "sky"),
    ]  # fmt: skip
    data = page_data(Path("page.html"))
    assert Counter(entry["state"] for entry in data["entries"]) == {"given": 6}
    page = Path("page.html").read_text("utf-8")
    assert "A model gave 6 tags" in page and "ramctl export --decisions" in page


def test_earlier_decisions_are_on_the_page(export):
    found = judged(export, "page.html", "--decisions", "decided.jsonl")
    verdicts = {key: verdict for key, verdict in found.items() if verdict}
    assert verdicts == {("b.jpg", "red"): "remove", ("c.jpg", "sky"): "keep"}


def test_the_page_in_a_new_folder_has_no_tags_that_sidecars_refuse_but_all_decisions(export):
    export("--xmp", "--decisions", "decided.jsonl")
    assert ("b.jpg", "red") not in judged(export, "a/b/page.html")
    # A page that lacked decisions would lose them when it is downloaded.
    for options in (["--top", "1"], []):
        found = judged(export, "page.html", "--decisions", "decided.jsonl", *options)
        assert (found["b.jpg", "red"], found["c.jpg", "sky"]) == ("remove", "keep")


def judged(export, page: str, *options: str) -> dict:
    """The verdicts, or None, by photo and tag of a page."""
    export("--review", page, *options)
    data = page_data(Path(page))
    images = [record["image"] for record in data["records"]]
    tags = [row["tag"] for row in data["tags"]]
    return {(images[x["record"]], tags[x["tag"]]): x.get("verdict") for x in data["entries"]}


def test_refused_tags_are_in_no_output_and_what_was_decided_is_in_the_records(export):
    out = export("-f", "jsonl", "--xmp", "--decisions", "decided.jsonl").stdout
    a, b, c = map(json.loads, out.splitlines())
    assert a == RECORDS[0]
    assert (b["tags"], b["scores"], b["refused"]) == (["dog"], {"dog": 0.5}, ["red"])
    assert (c["tags"], c["confirmed"]) == (["red", "sky"], ["sky"])
    assert keywords(Path("b.jpg.xmp")) == ["dog"]


def test_a_tag_that_was_refused_does_not_come_back_under_another_name(export):
    Path("names.tsv").write_text("red\tcrimson\n")
    words = ["--rename", "names.tsv", "--decisions", "decided.jsonl", "--xmp", "-f", "jsonl"]
    _, b, c = map(json.loads, export(*words).stdout.splitlines())
    assert (b["tags"], b["refused"]) == (["dog"], ["red"])
    assert c["tags"] == ["crimson", "sky"]
    assert keywords(Path("b.jpg.xmp")) == ["dog"]


def test_decisions_change_what_a_resumed_output_rests_on(export):
    export("-f", "jsonl", "-o", "out.jsonl")
    again = ["-f", "jsonl", "-o", "out.jsonl", "--decisions", "decided.jsonl", "--resume"]
    assert "decisions file" in export(*again, code=1).messages


def test_the_page_that_somebody_else_wrote_stays(export):
    Path("page.html").write_text("mine")
    export("--review", "page.html", code=2)
    assert Path("page.html").read_text() == "mine"


def show(browser, **fields):
    """Choose a view, or other filters, of the page."""
    for name, value in fields.items():
        browser.value(f"Object.assign(byId('{name}'), {json.dumps(value)})")
    browser.value("byId('filters').dispatchEvent(new Event('change'))")


BY_TAG = {"view": {"value": "tag"}, "open": {"checked": False}}
CHIPS = """[...document.querySelectorAll("#cards figure")].map((card) =>
    [...card.querySelectorAll("[data-chip]")].map((chip) =>
        chip.textContent + ":" + chip.className))"""


def test_by_photo_wrong_tags_are_struck_and_the_rest_is_right(export, browser, tmp_path):
    export("--review", "page.html")
    browser.open(Path("page.html").absolute())
    # Expected mistakes: half a tag and 0.25, 0.5 and 0.2, 0.1 and 0.3.
    assert browser.value(CHIPS) == [["sky:", "red:"], ["dog:", "red:"], ["red:", "dog:"]]
    browser.value("document.querySelectorAll('[data-chip]')[1].click()")
    browser.press("a")
    browser.value("document.querySelectorAll('[data-choice=accept]')[1].click()")
    assert browser.value(CHIPS)[:2] == [["sky:right", "red:out"], ["dog:right", "red:right"]]
    assert downloaded(browser, tmp_path) == [
        {"image": "c.jpg", "tag": "red", "verdict": "remove"},
        {"image": "c.jpg", "tag": "sky", "verdict": "keep"},
        {"image": "b.jpg", "tag": "red", "verdict": "keep"},
        {"image": "b.jpg", "tag": "dog", "verdict": "keep"},
    ]
    browser.press("u")
    assert browser.value(CHIPS)[1] == ["dog:", "red:"]
    browser.value("document.querySelectorAll('[data-chip]')[1].click()")
    assert browser.value(CHIPS)[0] == ["sky:right", "red:"]
    show(browser, view={"value": "doubt"})
    names = "[...document.querySelectorAll('#cards figure')].map((one) => one.ariaLabel)"
    assert browser.value(names)[0] in ("sky: given", "dog: given")


def test_all_photos_of_a_tag_are_refused_at_once(export, browser, tmp_path):
    export("--review", "page.html")
    browser.open(Path("page.html").absolute())
    show(browser, **BY_TAG)
    browser.value("document.querySelectorAll('[data-rest=refuse]')[1].click()")
    assert {(one["tag"], one["verdict"]) for one in downloaded(browser, tmp_path)} == {
        ("dog", "remove")
    }
    browser.press("u", "R")
    assert {one["tag"] for one in downloaded(browser, tmp_path)} == {"dog"}
    assert "given by the model" in browser.value("document.querySelector('.state').textContent")


def test_only_what_is_new_since_the_last_decisions_is_shown(export, browser):
    export("--review", "page.html", "--decisions", "decided.jsonl")
    browser.open(Path("page.html").absolute())
    assert browser.value(CHIPS) == [["dog:"], ["red:", "dog:"], ["red:"]]
    show(browser, open={"checked": False})
    assert browser.value(CHIPS)[0] == ["sky:right", "red:"]


def test_the_share_of_right_tags_is_shown_with_its_interval(export, browser):
    export("--review", "page.html")
    browser.open(Path("page.html").absolute())
    show(browser, **BY_TAG)
    assert browser.value("byId('progress').value") == "0 of 6 decided, about 2 mistakes left"
    browser.press("p", "p", "A")  # the rest of red
    browser.press("n", "r", "a")
    progress = "document.getElementById('progress').value"
    # Wilson's interval of 4 of 5.
    # Of 1.35 expected mistakes one was made, so half a tag in doubt is less than half a mistake.
    assert browser.value(progress) == "5 of 6 decided, about 0 mistakes left"
    right = browser.value("byId('right').textContent")
    assert right.startswith("80 % of the 5 tags") and "38 to 96 %" in right
    browser.press("u", "u", "u")
    assert browser.value(progress) == "0 of 6 decided, about 2 mistakes left"
    assert browser.value("byId('right').textContent") == ""


def test_a_missing_word_is_written_on_the_page_and_added_to_every_output(export, browser, tmp_path):
    export("--review", "page.html")
    browser.open(Path("page.html").absolute())
    show(browser, **BY_TAG)
    browser.press("n", "n", "w", *"old  wall", "Enter", "u", "w", *"a wall", "Enter")  # c.jpg
    browser.press("w", *"red", "Enter")  # which it has
    assert downloaded(browser, tmp_path) == [
        {"image": "c.jpg", "tag": "a wall", "verdict": "add"},
        {"image": "c.jpg", "tag": "red", "verdict": "keep"},
    ]
    browser.look(390)
    assert browser.value("document.documentElement.scrollWidth") <= 390
    export("--review", "page.html", "--decisions", "decisions.jsonl", "-f", "jsonl", "-o", "out")
    added = json.loads(Path("out").read_text().splitlines()[2])
    assert (added["tags"], added["sources"]) == (["red", "sky", "a wall"], {"a wall": ["human"]})
    assert added["confirmed"] == ["red"]
    browser.open(Path("page.html").absolute())
    show(browser, **BY_TAG)
    card = "document.querySelector('[aria-label^=\"a wall\"]')"
    for choice, verdict in (("refuse", "remove"), ("accept", "add")):  # the word that was added
        browser.value(f"{card}.querySelector('[data-choice={choice}]').click()")
        verdicts = {one["tag"]: one["verdict"] for one in downloaded(browser, tmp_path)}
        assert verdicts == {"red": "keep", "a wall": verdict}


def test_what_was_decided_before_stays_in_a_record():
    fields = {"image": "b.jpg", "tags": ["dog", "red"], "refused": ["cat"]}
    Verdicts({"b.jpg": {"red": "remove", "sky": "keep"}}).apply(fields)
    assert fields == {"image": "b.jpg", "tags": ["dog"], "refused": ["cat", "red"]}
