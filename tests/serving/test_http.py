"""`POST /tag`: what it answers, and what it refuses; a service of one's own by `Tagger`."""

import json
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pytest

from tests.command import Ramctl
from tests.conftest import REPOSITORY
from tests.docs.examples import examples
from tests.serving.conftest import MAX_BYTES, photo, served
from tests.support import DATA

RED = photo("red")


def test_a_photo_gets_what_tag_writes(server):
    answer = server.ask(body=RED)
    assert answer == (200, {"tags": ["red", "colour"], "scores": {"red": 0.9975, "colour": 0.9526}})


def test_a_request_chooses_threshold_number_kinds_and_words(server):
    low = server.ask(path="/tag?threshold=0&top=3", body=RED).fields["scores"]
    assert list(low)[:2] == ["red", "colour"] and len(low) == 3
    assert server.ask(path="/tag?threshold=0.99", body=RED).fields["tags"] == ["red"]
    assert server.ask(path="/tag?kinds=object,scene", body=RED).fields["tags"] == []
    words = server.ask(path="/tag?labels=purple,+red,red&threshold=0", body=RED).fields["scores"]
    assert list(words) == ["red", "purple"]
    chinese = server.ask(path="/tag?labels=blue,red&lang=zh&threshold=0.5", body=photo("blue"))
    assert (chinese.fields["tags"], chinese.fields["tag_language"]) == (["蓝色"], "zh")


def test_options_are_those_of_tag(tmp_path):
    horses = (DATA / "photos" / "horses.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(horses)
    (tmp_path / "words.txt").write_text("horse\nzebra\n")
    with served("--labels", "words.txt", folder=tmp_path) as running:
        for words in (
            ["--labels", "words.txt"], ["--labels", "words.txt", "--threshold", "0"],
            ["--labels", "words.txt", "--precision", "0.6", "--lang", "zh", "--top", "1"],
        ):  # fmt: skip
            (row,) = Ramctl(tmp_path)("tag", "-q", "-f", "jsonl", "a.jpg", *words).rows
            row.pop("image")
            pairs = zip(words[2::2], words[3::2], strict=True)
            query = "&".join(f"{name[2:]}={value}" for name, value in pairs)
            for listed in ("", "&labels=horse,zebra"):
                assert running.ask(path=f"/tag?{query}{listed}", body=horses) == (200, row)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("threshold=high", "threshold: 'high' is not"), ("threshold=1.5", "threshold 1.5: not "),
        ("threshold=nan", "threshold nan: not "), ("top=0", "top"), ("top=1.5", "top: "),
        ("boxes=maybe", "boxes: "), ("path=red.png", "'path' is not one of threshold, "),
        ("precision=2", "precision 2 is not between"), ("lang=xx", "language 'xx': "),
        ("kinds=thing", "kinds: 'thing' is not one of "), ("caption=1", ""),
        ("precision=0.9&threshold=0.5", "precision chooses the thresholds"),
        ("labels=/etc/passwd", "labels: the model knows none"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(server, query, message):
    answer = server.ask(path=f"/tag?{query}", body=RED)
    assert (answer.status, answer.fields["code"]) == (400, "usage")
    assert answer.fields["message"].startswith(message)


def test_words_are_words_and_no_names_of_files(server):
    answer = server.ask(path="/tag?labels=%2Bred.png,red&threshold=0", body=RED)
    assert set(answer.fields["tags"]) == {"+red.png", "red"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tag", 404), ("PUT", "/tag", 501), ("POST", "/", 404), ("GET", "/red.png", 404),
        ("POST", "/tag/red.png", 404), ("GET", "/../../etc/passwd", 404),
        ("GET", "/static/..%2f..%2fetc/passwd", 404), ("GET", "//etc/passwd", 404),
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_page_and_tag(server, method, path, status):
    answer = server.ask(method, path, RED)
    assert (answer.status, [*answer.fields]) == (status, ["code", "message"])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "unreadable_image"), (b"red.png", 422, "unreadable_image"),
        (b'{"image": "red.png"}', 422, "unreadable_image"), (RED[:100], 422, "unreadable_image"),
        (bytes(200 * MAX_BYTES), 413, "too_large"),
    ],
    ids=["empty", "name", "record", "half", "large"],
)  # fmt: skip
def test_what_is_no_photo_is_refused(server, body, status, code):
    answer = server.ask(body=body)
    assert (answer.status, answer.fields["code"]) == (status, code)
    assert answer.fields["message"].startswith("the photo")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"POST /tag HTTP/1.1\r\nContent-Length: {10**12}\r\nExpect: 100-continue", b"413"),
        ("POST /tag HTTP/1.1\r\nContent-Length: 99\r\nExpect: 100-continue", b"100"),
        ("POST /tag HTTP/1.1\r\nTransfer-Encoding: chunked", b"411"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_at_once(server, head, status):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(f"{head}\r\nHost: localhost\r\n\r\n".encode())
        assert line.recv(100).startswith(b"HTTP/1.1 " + status)


def test_many_at_once_get_each_their_own_answer(server):
    colours = ["red", "green", "blue"] * 8

    def ask(colour):
        return server.ask(body=photo(colour, "JPEG")).fields["tags"][0]

    with ThreadPoolExecutor(len(colours)) as pool:
        assert list(pool.map(ask, colours)) == colours


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(colours, tmp_path, signum):
    with (
        served("--model", colours, folder=tmp_path) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=60),
    ):
        running.process.send_signal(signum)
        assert running.process.wait(30) == -signum
        said = b"ramctl serve: interrupted\n" if signum == signal.SIGINT else b""
        assert running.process.stderr.read() == said


def test_what_cannot_be_served_is_a_line(server, colours, ramctl):
    done = ramctl("serve", "--model", colours, "--port", server.port)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"127.0.0.1:{server.port}: Address already in use".encode() in done.stderr
    done = ramctl("serve", "--model", "no-such-model", "--port", 0)
    assert done.returncode in (1, 2) and b"no-such-model" in done.stderr
    done = ramctl("serve", "--port", 0, "--device", "cpu,cpu")
    assert (done.returncode, "a server has one device" in done.messages) == (2, True)


def test_the_manual_s_own_service_tags(tmp_path):
    manual = (REPOSITORY / "ramctl/apps/README.md").read_text("utf-8")
    (code,) = (one.code for one in examples(manual) if one.language == "python")
    names, statuses = {}, []
    exec(code, names)
    for body in ((DATA / "photos" / "horses.jpg").read_bytes(), b"no photo"):
        environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
        (content,) = names["app"](environ, lambda status, headers: statuses.append(status))
        assert {"tags", "message"} & json.loads(content).keys()
    assert statuses == ["200 OK", "422 Unprocessable Entity"]
