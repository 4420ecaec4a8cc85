"""`ramctl serve`: what `POST /tag` answers and refuses, and the page in a real browser."""

import base64
import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from tests.apps.conftest import MAX_BYTES, answering
from tests.conftest import REPOSITORY
from tests.docs.examples import examples
from tests.support import DATA

NAMES = ("cat", "temple", "flower")
CAT, *_ = PHOTOS = [(DATA / "pictures" / f"{name}.jpg").read_bytes() for name in NAMES]


@pytest.mark.parametrize(
    "options", [[], ["--threshold=0"], ["--precision=0.6", "--lang=zh", "--top=1"]]
)
def test_parameters_are_options_of_tag(server, command, tmp_path, options):
    (tmp_path / "a.jpg").write_bytes(CAT)
    (tmp_path / "words.txt").write_text("\n".join(NAMES))  # as the server has them
    (row,) = command("tag", "a.jpg", "--labels", "words.txt", *options).rows
    del row["image"]
    query = "&".join(option[2:] for option in options)
    for listed in ("", f"&labels={','.join(NAMES)}"):
        assert server.ask(path=f"/tag?{query}{listed}", body=CAT) == (200, row)


def test_words_are_of_the_language_of_the_names(server):
    answer = server.ask(path="/tag?labels=Hut,Katze&lang=de&threshold=0", body=CAT)
    assert answer.fields["tags"][0] == "Katze"


def test_words_are_no_names_of_files(server):
    answer = server.ask(path="/tag?labels=words.txt,%2Bcat.png,words.txt&threshold=0", body=CAT)
    assert {*answer.fields["tags"]} == {"words.txt", "+cat.png"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("threshold=high", "threshold: 'high' is not"), ("threshold=1.5", "threshold 1.5: not "),
        ("top=0", "top"), ("boxes=maybe", "boxes: "), ("lang=xx", "language 'xx': "),
        ("path=cat.png", "'path' is not one of threshold, "), ("caption=1", ""),
        ("precision=0.9&threshold=0.5", "precision chooses the thresholds"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(server, query, message):
    answer = server.ask(path=f"/tag?{query}", body=CAT)
    assert (answer.status, answer.fields["code"]) == (400, "usage")
    assert answer.fields["message"].startswith(message)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /tag HTTP/1.1", b"404"), ("GET /../../etc/passwd HTTP/1.1", b"404"),
        ("POST / HTTP/1.1", b"404"), ("POST /tag HTTP/1.1", b"411"),
        (f"POST /tag HTTP/1.1\r\nContent-Length: {MAX_BYTES + 1}", b"413"),
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_page_and_tag(server, head, status):
    assert server.status_of(head) == status


def test_what_is_no_photo_is_refused(server):
    for body in (b"", b'{"image": "red.png"}', CAT[:100]):
        answer = server.ask(body=body)
        assert (answer.status, answer.fields["code"]) == (422, "unreadable_image")
        assert answer.fields["message"].startswith("the photo")


def test_many_at_once_get_each_their_own_answer(server):
    def ask(photo):
        return server.ask(path="/tag?threshold=0&top=1", body=photo).fields["tags"]

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(ask, PHOTOS * 8)) == [[name] for name in NAMES] * 8


def test_a_signal_ends_it_although_a_connection_is_open(ramctl):
    with (
        answering(ramctl.start("serve", "--port", "0")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=60),
    ):
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == -signal.SIGINT
        assert running.process.stderr.read() == b"ramctl serve: interrupted\n"


def test_an_address_in_use_is_a_line(server, command):
    done = command("serve", "--port", server.port, code=1)
    assert f"127.0.0.1:{server.port}: Address already in use" in done.messages
    assert done.messages.count("\n") == 1


def test_the_manual_s_own_service_tags():
    manual = (REPOSITORY / "ramctl/apps/README.md").read_text("utf-8")
    (code,) = (one.code for one in examples(manual) if one.language == "python")
    names, statuses = {}, []
    exec(code, names)
    for body in (CAT, b"no photo"):
        environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
        (content,) = names["app"](environ, lambda status, headers: statuses.append(status))
        assert {"tags", "message"} & json.loads(content).keys()
    assert statuses == ["200 OK", "422 Unprocessable Entity"]


def shown(browser, part="tags"):
    """The words in one of the two lists, with their scores."""
    rows = f"[...document.querySelectorAll('#{part} li button')]"
    each = "(one) => [one.querySelector('b').textContent, one.querySelector('small').textContent]"
    return dict(browser.value(f"{rows}.map({each})"))


def drop(browser, content: bytes) -> None:
    """Drop a file on the page."""
    browser.value(
        f"""{{ const bytes = atob("{base64.b64encode(content).decode()}");
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(
            new File([Uint8Array.from(bytes, (one) => one.charCodeAt(0))], "a.jpg"));
          byId("drop").dispatchEvent(
            new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }})); }}"""
    )


def test_on_the_page_a_photo_s_tags_follow_the_threshold_and_an_error_leaves_them(server, browser):
    answer = server.ask(body=CAT).fields["scores"]
    own = {tag: f"{score:.2f}" for tag, score in answer.items()}
    browser.open(server.place)
    browser.wait("Boolean(photo) && photo.isExample")
    drop(browser, CAT)
    browser.wait("Boolean(photo) && !photo.isExample && Boolean(photo.known.own)")
    assert shown(browser) == own and "cat" in own
    browser.wait("byId('caption').textContent.includes('No boxes and no caption')")
    assert browser.value("byId('trouble').hidden")  # that is no error
    browser.value("byId('threshold').value = 0.02")
    browser.value("byId('threshold').dispatchEvent(new Event('input'))")
    browser.wait("Boolean(photo.known.all)")
    assert len(shown(browser)) > len(own)
    browser.value("byId('own').click()")
    for content, reason in ((b"hello", "not a photo"), (bytes(MAX_BYTES + 1), "than 0.2 MB")):
        drop(browser, content)
        browser.wait(f"byId('trouble').textContent.includes('{reason}')")
        assert shown(browser) == own
    browser.value("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.value("byId('copy').click()")
    browser.wait(f"window.copied === '{', '.join(own)}'")
    browser.value("byId('words').value = 'kitten'; learnAll()")
    browser.wait("document.querySelector('#asked li b')?.textContent === 'kitten'")
    browser.look(390)
    assert browser.value("document.documentElement.scrollWidth") <= 390
