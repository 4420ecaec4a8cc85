"""The page in a real browser: a photo, its tags, the threshold, words of one's own."""

import base64

from tests.serving.conftest import MAX_BYTES, photo


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


def test_a_photo_s_tags_follow_the_threshold_and_an_error_leaves_them(server, browser):
    browser.open(server.place)
    browser.wait("Boolean(photo) && photo.isExample")
    drop(browser, photo("red"))
    browser.wait("document.querySelector('#tags li b')?.textContent === 'red'")
    assert shown(browser) == {"red": "1.00", "colour": "0.95"}
    browser.wait("byId('caption').textContent.includes('No boxes and no caption')")
    assert browser.value("byId('trouble').hidden")  # that is no error
    browser.value("byId('threshold').value = 0.98")
    browser.value("byId('threshold').dispatchEvent(new Event('input'))")
    browser.wait("Boolean(photo.known.all)")
    assert list(shown(browser)) == ["red"]
    browser.value("byId('own').click()")
    for content, reason in ((b"hello", "not a photo"), (bytes(MAX_BYTES + 1), "than 0.2 MB")):
        drop(browser, content)
        browser.wait(f"byId('trouble').textContent.includes('{reason}')")
        assert list(shown(browser)) == ["red", "colour"]
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.value("byId('copy').click()")
    browser.wait("window.copied === 'red, colour'")
    browser.value("byId('words').value = 'blue'; learnAll()")
    browser.wait("document.querySelector('#asked li b')?.textContent === 'blue'")
    browser.look(390)
    assert browser.value("document.documentElement.scrollWidth") <= 390
