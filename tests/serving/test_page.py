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


def drop(browser, *contents):
    """Drop files on the page."""
    files = [base64.b64encode(content).decode() for content in contents]
    browser.value(
        f"""{{ const dataTransfer = new DataTransfer();
          for (const [n, file] of {files}.entries()) {{
            const bytes = Uint8Array.from(atob(file), (one) => one.charCodeAt(0));
            dataTransfer.items.add(new File([bytes], `${{n}}.png`)); }}
          byId("drop").dispatchEvent(
            new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }})); }}"""
    )


def ready(browser, server):
    """Open the page and wait for its example."""
    browser.open(server.place)
    browser.wait("Boolean(photo) && photo.isExample")


def move(browser, threshold):
    browser.value(f"byId('threshold').value = {threshold}")
    browser.value("byId('threshold').dispatchEvent(new Event('input'))")


def test_a_photo_is_dropped_and_another_chosen(server, browser, tmp_path):
    ready(browser, server)
    assert "An example" in browser.value("byId('caption').textContent")
    drop(browser, photo("red"))
    browser.wait("document.querySelector('#tags li b')?.textContent === 'red'")
    assert shown(browser) == {"red": "1.00", "colour": "0.95"}
    browser.wait("byId('caption').textContent.includes('No boxes and no caption')")
    assert "An example" not in browser.value("byId('caption').textContent")
    assert browser.value("byId('trouble').hidden")  # that is no error
    assert browser.value("byId('photo').naturalWidth") == 64
    (tmp_path / "blue.jpg").write_bytes(photo("blue", "JPEG"))
    root = browser.do("DOM.getDocument")["root"]["nodeId"]
    field = browser.do("DOM.querySelector", nodeId=root, selector="#file")
    browser.do("DOM.setFileInputFiles", **field, files=[str(tmp_path / "blue.jpg")])
    browser.wait("document.querySelector('#tags li b')?.textContent === 'blue'")


def test_the_threshold_moves_and_goes_back_to_the_model_s(server, browser):
    ready(browser, server)
    drop(browser, photo("red"))
    browser.wait("!photo.isExample")
    move(browser, 0.98)
    browser.wait("Boolean(photo.known.all)")
    assert list(shown(browser)) == ["red"]
    move(browser, 0.02)
    assert list(shown(browser))[:2] == ["red", "colour"]
    assert browser.value("byId('level').value") == "0.02"
    browser.value("byId('own').click()")
    assert list(shown(browser)) == ["red", "colour"]
    assert browser.value("byId('level').value") == "the model's"


def test_an_error_leaves_the_earlier_photo_with_its_tags(server, browser):
    ready(browser, server)
    drop(browser, photo("red"))
    browser.wait("photo.name === '0.png'")
    for content, reason in ((b"hello", "not a photo"), (bytes(MAX_BYTES + 1), "than 0.2 MB")):
        drop(browser, content)
        browser.wait(f"byId('trouble').textContent.includes('{reason}')")
        assert shown(browser) == {"red": "1.00", "colour": "0.95"}
        assert browser.value("byId('photo').naturalWidth") == 64
    browser.value("byId('words').value = 'blue'; learnAll()")
    browser.wait("Boolean(document.querySelector('#asked li b'))")
    browser.value("byId('words').value = '/etc/passwd'; learnAll()")
    browser.wait("byId('trouble').textContent.includes('knows none of the words')")
    assert list(shown(browser, "asked")) == ["blue"]
    drop(browser, photo("green"))
    browser.wait("document.querySelector('#tags li b')?.textContent === 'green'")
    assert "not a photo" not in browser.value("byId('trouble').textContent")


def test_the_tags_on_the_page_are_copied(server, browser):
    ready(browser, server)
    drop(browser, photo("red"))
    browser.wait("photo.name === '0.png'")
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.value("byId('copy').click()")
    browser.wait("byId('copy').textContent === 'Copied'")
    assert browser.value("copied") == "red, colour"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_both_schemes(server, browser, scheme):
    ready(browser, server)
    browser.look(390, scheme=scheme)
    drop(browser, photo("red"))
    browser.wait("!photo.isExample")
    assert browser.value("document.documentElement.scrollWidth") <= 390
    sheet = browser.value("matchMedia('(prefers-color-scheme: dark)').matches")
    assert sheet == (scheme == "dark")


@pytest.mark.slow
def test_words_of_ones_own_boxes_and_a_caption(browser, tiny_bundle, tmp_path):
    Image.new("RGB", (64, 48), "green").save(tmp_path / "green.png")
    with served("--model", tiny_bundle, folder=tmp_path) as running:
        browser.open(running.place)
        browser.value("byId('words').value = 'horse, sky'")
        drop(browser, (tmp_path / "green.png").read_bytes())
        wanted = "Boolean(photo && !photo.isExample && photo.known.more && photo.known.words)"
        while not browser.value(wanted) and browser.value("byId('trouble').hidden"):
            pass
        assert browser.value("byId('trouble').textContent") == ""
        move(browser, 0.02)
        assert set(shown(browser, "asked")) == {"horse", "sky"}
        caption = browser.value("photo.known.more.generated_captions[0]")
        assert browser.value("byId('caption').textContent") == caption
        browser.value("document.querySelector('#asked li button').focus()")
        tag = browser.value("document.querySelector('#asked li b').textContent")
        box, _ = browser.value(f"photo.known.words.boxes['{tag}']")
        assert browser.part("#photo", "#box") == pytest.approx(box, abs=0.03)
        assert browser.value("byId('box').textContent") == tag
