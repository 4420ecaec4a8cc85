"""The page in a real browser: a photo, its tags, the threshold, words of one's own."""

import base64

import pytest
from PIL import Image

from tests.serving.conftest import MAX_BYTES, photo, served


def shown(browser, part="tags"):
    """The words in one of the two lists, with their scores."""
    rows = f"[...document.querySelectorAll('#{part} li button')]"
    each = "(one) => [one.querySelector('b').textContent, one.querySelector('small').textContent]"
    return dict(browser.value(f"{rows}.map({each})"))


def drop(browser, content, name="photo.png"):
    """Drop a file on the page."""
    data = base64.b64encode(content).decode()
    browser.value(
        f"""{{ const bytes = Uint8Array.from(atob("{data}"), (one) => one.charCodeAt(0));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([bytes], "{name}"));
          byId("drop").dispatchEvent(
            new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }})); }}"""
    )


def move(browser, threshold):
    browser.value(f"byId('threshold').value = {threshold}")
    browser.value("byId('threshold').dispatchEvent(new Event('input'))")


def test_a_photo_is_dropped_and_another_chosen(server, browser, tmp_path):
    browser.open(server.place)
    drop(browser, photo("red"))
    browser.wait("document.querySelectorAll('#tags li button').length === 2")
    assert shown(browser) == {"red": "1.00", "colour": "0.95"}
    browser.wait("byId('trouble').textContent === 'this needs torch, which is not installed'")
    assert browser.value("byId('photo').naturalWidth") == 64
    (tmp_path / "blue.jpg").write_bytes(photo("blue", "JPEG"))
    root = browser.do("DOM.getDocument")["root"]["nodeId"]
    field = browser.do("DOM.querySelector", nodeId=root, selector="#file")
    browser.do("DOM.setFileInputFiles", **field, files=[str(tmp_path / "blue.jpg")])
    browser.wait("document.querySelector('#tags li b')?.textContent === 'blue'")


def test_the_threshold_moves_and_goes_back_to_the_model_s(server, browser):
    browser.open(server.place)
    drop(browser, photo("red"))
    browser.wait("Boolean(known.all && known.own)")
    move(browser, 0.98)
    assert list(shown(browser)) == ["red"]
    move(browser, 0.02)
    assert list(shown(browser))[:2] == ["red", "colour"]
    assert browser.value("byId('level').value") == "0.02"
    browser.value("byId('own').click()")
    assert list(shown(browser)) == ["red", "colour"]
    assert browser.value("byId('level').value") == "the model's"


def test_what_is_no_photo_or_too_large_is_said(server, browser):
    browser.open(server.place)
    for content, said in ((b"hello", "not a photo"), (bytes(MAX_BYTES + 1), "more than 0.2 MB")):
        drop(browser, content)
        browser.wait(f"byId('trouble').textContent.includes('{said}')")
    drop(browser, photo("red"))
    browser.wait("document.querySelectorAll('#tags li button').length === 2")
    assert "not a photo" not in browser.value("byId('trouble').textContent")


def test_a_page_of_somebody_else_gets_nothing(server, browser, tmp_path):
    (tmp_path / "evil.html").write_text("<p>evil")
    browser.open(tmp_path / "evil.html")
    browser.value(f"""var got = "waiting";
        fetch("{server.place}tag", {{ method: "POST", body: "x" }})
          .then(() => got = "answer", () => got = "nothing")""")
    browser.wait("got !== 'waiting'")
    assert browser.value("got") == "nothing"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_both_schemes(server, browser, scheme):
    browser.open(server.place)
    browser.look(390, scheme=scheme)
    drop(browser, photo("red"))
    browser.wait("document.querySelectorAll('#tags li button').length === 2")
    assert browser.value("document.documentElement.scrollWidth") <= 390
    sheet = browser.value("matchMedia('(prefers-color-scheme: dark)').matches")
    assert sheet == (scheme == "dark")


@pytest.mark.slow
def test_words_of_ones_own_boxes_and_a_caption(browser, tiny_bundle, tmp_path):
    Image.new("RGB", (64, 48), "green").save(tmp_path / "green.png")
    with served("--model", tiny_bundle, "--max-seconds", 120, folder=tmp_path) as running:
        browser.open(running.place)
        browser.value("byId('words').value = 'horse, sky'")
        drop(browser, (tmp_path / "green.png").read_bytes())
        wanted = "Boolean(known.own && known.more && known.words)"
        while not browser.value(wanted) and browser.value("byId('trouble').hidden"):
            pass
        assert browser.value("byId('trouble').textContent") == ""
        move(browser, 0.02)
        assert set(shown(browser, "asked")) == {"horse", "sky"}
        caption = browser.value("known.more.generated_captions[0]")
        assert browser.value("byId('caption').textContent") == caption
        browser.value("document.querySelector('#asked li button').focus()")
        tag = browser.value("document.querySelector('#asked li b').textContent")
        box, _ = browser.value(f"known.words.boxes['{tag}']")
        assert browser.part("#photo", "#box") == pytest.approx(box, abs=0.03)
        assert browser.value("byId('box').textContent") == tag
