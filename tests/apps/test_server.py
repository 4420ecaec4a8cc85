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


def test_a_request_chooses_threshold_number_kinds_and_words(server):
    answer = server.ask(body=RED)
    assert answer == (200, {"tags": ["red", "colour"], "scores": {"red": 0.9975, "colour": 0.9526}})
    low = server.ask(path="/tag?threshold=0&top=3", body=RED).fields["scores"]
    assert list(low)[:2] == ["red", "colour"] and len(low) == 3
    # Words are no names of files.
    words = server.ask(path="/tag?labels=purple,%2Bred.png,red,red&threshold=0", body=RED).fields
    assert set(words["tags"]) == {"red", "purple", "+red.png"}


def test_options_are_those_of_tag(tmp_path):
    horses = (DATA / "photos" / "horses.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(horses)
    (tmp_path / "words.txt").write_text("horse\nzebra\n")
    with served("--labels", "words.txt", folder=tmp_path) as running:
        for words in (["--threshold", "0"], ["--precision", "0.6", "--lang", "zh", "--top", "1"]):
            all_words = ["tag", "-q", "-f", "jsonl", "a.jpg", "--labels", "words.txt", *words]
            (row,) = Ramctl(tmp_path)(*all_words).rows
            row.pop("image")
            pairs = zip(words[::2], words[1::2], strict=True)
            query = "&".join(f"{name[2:]}={value}" for name, value in pairs)
            for listed in ("", "&labels=horse,zebra"):
                assert running.ask(path=f"/tag?{query}{listed}", body=horses) == (200, row)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("threshold=high", "threshold: 'high' is not"), ("threshold=1.5", "threshold 1.5: not "),
        ("top=0", "top"), ("boxes=maybe", "boxes: "), ("lang=xx", "language 'xx': "),
        ("path=red.png", "'path' is not one of threshold, "), ("caption=1", ""),
        ("precision=0.9&threshold=0.5", "precision chooses the thresholds"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(server, query, message):
    answer = server.ask(path=f"/tag?{query}", body=RED)
    assert (answer.status, answer.fields["code"]) == (400, "usage")
    assert answer.fields["message"].startswith(message)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /tag", b"404"), ("PUT /tag", b"501"), ("GET /../../etc/passwd", b"404"),
        ("POST /", b"404"), ("POST /tag", b"411"),
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_page_and_tag(server, head, status):
    assert server.status_of(f"{head} HTTP/1.1") == status


def test_what_is_no_photo_is_refused(server):
    for body in (b"", b'{"image": "red.png"}', RED[:100]):
        answer = server.ask(body=body)
        assert (answer.status, answer.fields["code"]) == (422, "unreadable_image")
        assert answer.fields["message"].startswith("the photo")
    large = f"POST /tag HTTP/1.1\r\nContent-Length: {MAX_BYTES + 1}"
    assert server.status_of(large) == b"413"


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


def test_an_address_in_use_is_a_line(server, colours, ramctl):
    done = ramctl("serve", "--model", colours, "--port", server.port)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"127.0.0.1:{server.port}: Address already in use".encode() in done.stderr


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
