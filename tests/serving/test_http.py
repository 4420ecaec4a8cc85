"""`POST /tag`: what it answers, and what it refuses."""

import asyncio
import json
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ramctl.errors import RecordProblem, RunProblem
from ramctl.photos.limits import PhotoLimits
from tests.command import Ramctl
from tests.photos.test_memory import needs_linux, png, webp
from tests.serving.conftest import MAX_BYTES, ORIGIN, Server, photo, served
from tests.support import DATA, write_records
from tests.tagging.conftest import LABELS
from tests.tagging.test_search import with_axes

pytest.importorskip("starlette", reason="needs the extra [serve]")
from ramctl.serving.app import MAX_WAITING, _above, make_app
from ramctl.serving.loaded_taggers import MAX_PHOTOS, LoadedTaggers, Variant
from ramctl.serving.traffic import Traffic

RED = photo("red")
WORDS = ["red", "green", "blue", "purple", "colour"]


def test_a_photo_gets_what_tag_writes(server):
    answer = server.ask(body=RED)
    assert answer.status == 200
    assert list(answer.fields) == ["tags", "scores"]
    assert answer.fields["tags"] == ["red", "colour"]
    assert answer.fields["scores"] == {"red": 0.9975, "colour": 0.9526}


def test_a_request_chooses_threshold_number_and_words(server):
    low = server.ask(path="/tag?threshold=0&top=3", body=RED).fields["scores"]
    assert list(low)[:2] == ["red", "colour"] and len(low) == 3
    high = server.ask(path="/tag?threshold=0.99", body=RED).fields
    assert high["tags"] == ["red"]
    words = server.ask(path="/tag?labels=purple,red&labels=+purple", body=RED).fields["scores"]
    assert list(words) == ["red", "purple"]  # all of them, whatever their scores
    one = server.ask(path="/tag?labels=purple,red&threshold=0.99", body=RED).fields["tags"]
    assert one == ["red"]


def test_its_description_is_openapi_and_says_what_is_asked_and_answered(server):
    from jsonschema import Draft202012Validator
    from openapi_spec_validator import validate

    described = server.ask("GET", "/openapi.json").fields
    validate(described)
    asked = described["paths"]["/tag"]["post"]
    assert {*Variant._fields} < {parameter["name"] for parameter in asked["parameters"]}
    answers = Draft202012Validator(described["components"]["schemas"]["Record"])
    answers.validate(server.ask(body=RED).fields)
    problems = Draft202012Validator(described["components"]["schemas"]["Problem"])
    for path, body in (("/tag?top=0", RED), ("/tag", b"")):
        refused = server.ask(path=path, body=body)
        problems.validate(refused.fields)
        assert str(refused.status) in asked["responses"]


def test_tags_are_above_the_threshold_and_a_doubled_one_has_its_highest_score():
    assert _above(0.5, ["a", "b", "a", "c"], [0.6, 0.7, 0.8, 0.5]) == {"a": 0.8, "b": 0.7}


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("threshold=high", "threshold: 'high' is not of type number, minimum 0, maximum 1"),
        ("threshold=1.5", "threshold: "), ("threshold=nan", "threshold: "),
        ("top=0", "top: "), ("top=1.5", "top: "), ("top=inf", "top: "), ("boxes=maybe", "boxes: "),
        ("path=red.png", "'path' is not one of boxes, caption, embedding, labels, lang, "),
        ("precision=2", "precision: "), ("embedding=no", "embedding: "), ("lang=", "lang: "),
        ("precision=0.9&threshold=0.5", "precision chooses the thresholds"),
        ("labels=" + "x" * 101, "labels: at most 100"),
        ("labels=" + ",".join(map(str, range(101))), "labels: at most 100"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_told_what_is_wrong(server, query, named):
    answer = server.ask(path=f"/tag?{query}", body=RED)
    assert (answer.status, answer.fields["code"]) == (400, "bad_request")
    assert answer.fields["message"].startswith(named)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/tag", 405), ("PUT", "/tag", 405), ("POST", "/", 405), ("DELETE", "/", 405),
        ("GET", "/red.png", 404), ("POST", "/tag/red.png", 404), ("GET", "/../../etc/passwd", 404),
        ("POST", "/tag/", 404),
        ("GET", "/static/..%2f..%2fetc/passwd", 404), ("GET", "//etc/passwd", 404),
    ],
)  # fmt: skip
def test_there_is_nothing_but_the_page_and_tag(server, method, path, status):
    answer = server.ask(method, path)
    assert answer.status == status and "message" in answer.fields


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        (b"", 400, "bad_request", "no photo"),
        (b"red.png", 422, "unreadable_image", "the photo: "),
        (b"/etc/passwd", 422, "unreadable_image", "the photo: "),
        (RED[:100], 422, "unreadable_image", "the photo: "),
        (bytes(MAX_BYTES + 1), 413, "too_large", f"the photo has more than {MAX_BYTES} bytes"),
    ],
    ids=["empty", "name", "path", "half", "large"],
)
def test_what_is_no_photo_is_refused(server, body, status, code, named):
    answer = server.ask(body=body)
    assert (answer.status, answer.fields["code"]) == (status, code)
    assert answer.fields["message"].startswith(named)


def test_words_are_words_and_no_names_of_files(server):
    answer = server.ask(path="/tag?labels=%2Bred.png,red", body=RED)
    assert set(answer.fields["tags"]) == {"+red.png", "red"}
    answer = server.ask(path="/tag?labels=/etc/passwd", body=RED)
    assert answer.status == 400 and answer.fields["message"].startswith("label '/etc/passwd': ")


def test_what_the_model_cannot_do_here_is_said(server):
    for query in ("boxes=1", "caption=1&boxes=true"):
        answer = server.ask(path=f"/tag?{query}", body=RED)
        assert (answer.status, answer.fields["code"]) == (501, "failed")
        assert answer.fields["message"] == "this needs torch, which is not installed"
    assert server.ask(path="/tag?boxes=0&caption=false", body=RED).status == 200


def form(*photos: bytes) -> dict:
    """The body and the header of a form with these files, as curl -F sends it."""
    head = b'--x-1\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    body = b"".join(head + photo + b"\r\n" for photo in photos) + b"--x-1--\r\n"
    return {"body": body, "content_type": 'multipart/form-data; boundary="x-1"'}


def test_several_photos_of_a_form_are_answered_in_their_order_each_with_its_own_problem(server):
    answer = server.ask(path="/tag?top=1", **form(RED, b"no photo", photo("blue"), b"", RED))
    assert answer.status == 200
    assert [one.get("tags", one.get("code")) for one in answer.fields] == [
        ["red"], "unreadable_image", ["blue"], "unreadable_image", ["red"],
    ]  # fmt: skip
    assert [len(server.ask(**form(RED)).fields)] == [1]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (RED, "multipart/form-data; boundary=x"), (RED, "multipart/form-data"),
        (form()["body"], form()["content_type"]),
        (form(RED)["body"][:-9], form()["content_type"]),
        (form(*[b"x"] * 33)["body"], form()["content_type"]),
    ],
    ids=["no boundary in it", "no boundary", "no photo", "no end", "too many"],
)  # fmt: skip
def test_a_form_without_photos_or_end_or_with_too_many_is_refused(server, body, content_type):
    answer = server.ask(body=body, content_type=content_type)
    assert (answer.status, answer.fields["code"]) == (400, "bad_request")
    assert answer.fields["message"].startswith("the form ")


def test_a_body_over_the_limit_is_dropped_and_its_sender_gets_the_answer(server):
    for path in ("/tag", "/tag?wrong=1", "/nothing"):
        answer = server.ask(path=path, body=bytes(200 * MAX_BYTES))
        assert answer.status == {"/tag": 413, "/tag?wrong=1": 400, "/nothing": 404}[path]


def test_it_says_that_it_is_ready(server, colours):
    answer = server.ask("GET", "/healthz")
    assert (answer.status, answer.fields) == (200, {"status": "ready", "model": str(colours)})


def test_labels_are_those_of_tag(colours, tmp_path):
    (tmp_path / "words.txt").write_text("purple\nred\n")
    with served("--model", colours, "--labels", "words.txt", folder=tmp_path) as running:
        scores = running.ask(path="/tag?threshold=0", body=RED).fields["scores"]
        assert list(scores) == ["red", "purple"]
        assert running.ask(path="/tag?labels=blue", body=RED).fields["tags"] == ["blue"]


def test_who_says_nothing_sends_slowly_or_leaves_in_the_middle_costs_others_nothing(server):
    slow = b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\nx"
    with ExitStack() as stack:
        for head in [b""] * 200 + [slow] * 40 + [b"POST /tag HTTP/1.1\r\nHost: loc"] * 100:
            line = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            stack.enter_context(line).sendall(head)
        for _ in range(5):
            assert server.ask(body=RED).status == 200
    time.sleep(0.5)  # they have left in the middle, before their time was over
    assert server.ask(body=RED).status == 200


def test_a_photo_that_is_too_large_is_refused_before_it_is_sent(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        head = f"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n"
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_photo_without_a_length_is_refused_once_it_is_too_large(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
        line.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MAX_BYTES // 1000 + 1):
            line.sendall(b"3e8\r\n" + bytes(1000) + b"\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"}, {"host": "evil.example:8000"}, {"host": "localhost.evil.example"},
        {"host": "evil@localhost"}, {"host": ""}, {"origin": "http://evil.example"},
        {"origin": "null"}, {"origin": "http://127.0.0.1:1"},
    ],
    ids=str,
)  # fmt: skip
def test_what_other_pages_make_a_browser_send_is_refused(server, headers):
    for method, path, body in (("POST", "/tag", RED), ("GET", "/", None)):
        answer = server.ask(method, path, body, **headers)
        assert (answer.status, answer.fields["code"]) == (403, "forbidden")
        assert "access-control-allow-origin" not in answer.headers


def test_this_machine_may_be_named_as_it_is(server):
    for host in (f"localhost:{server.port}", "127.0.0.1", "[::1]:9", "LOCALHOST"):
        assert server.ask(body=RED, host=host, origin=f"http://{host}").status == 200


def test_who_sends_a_photo_too_slowly_is_told_so_and_who_never_asks_is_hung_up_on(server):
    head = b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    begun = {head + bytes(10): b"HTTP/1.1 408 ", head[:30]: b"", b"": b""}
    lines = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in begun]
    for line, sent in zip(lines, begun, strict=True):
        line.sendall(sent)
    for line, answer in zip(lines, begun.values(), strict=True):
        with line:
            assert line.recv(100)[:13] == answer
    assert server.ask(body=RED).status == 200


def test_many_at_once_get_each_their_own_answer(server):
    colours = ["red", "green", "blue"] * 8

    def ask(colour):
        return server.ask(body=photo(colour, "JPEG")).fields["tags"][0]

    with ThreadPoolExecutor(len(colours)) as pool:
        assert list(pool.map(ask, colours)) == colours


def test_answers_are_not_kept_nor_sniffed_nor_framed(server):
    for answer in (server.ask("GET", "/"), server.ask(body=RED), server.ask(body=b"x")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(colours, tmp_path, signum):
    with served("--model", colours, folder=tmp_path) as running:
        running.process.send_signal(signum)
        assert running.process.wait(30) == -signum
        said = b"ramctl serve: interrupted\n" if signum == signal.SIGINT else b""
        assert running.process.stderr.read() == said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_who_still_sends_when_it_ends_gets_an_answer(colours, tmp_path, signum):
    with served("--model", colours, folder=tmp_path) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as line:
            line.sendall(b"POST /tag HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nab")
            time.sleep(0.5)
            running.process.send_signal(signum)
            answer = b"".join(iter(lambda: line.recv(4096), b""))
        assert running.process.wait(30) == -signum
        assert answer.startswith(b"HTTP/1.1 503 ") and b'"the server ends"' in answer
        assert b"Traceback" not in running.process.stderr.read()


def test_a_port_that_is_taken_and_a_model_that_is_not_there_are_a_line(server, colours, ramctl):
    done = ramctl("serve", "--model", colours, "--port", server.port)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"127.0.0.1:{server.port}: Address already in use".encode() in done.stderr
    done = ramctl("serve", "--model", "no-such-model", "--port", 0)
    assert done.returncode in (1, 2) and b"no-such-model" in done.stderr


def peak_of(server: Server) -> int:
    """Most bytes that the server had in memory so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.slow
@needs_linux
def test_it_stays_below_a_gigabyte_whatever_is_asked_and_others_are_answered(colours, tmp_path):
    large = png(9000, 2, 3)
    with served("--model", colours, folder=tmp_path) as running, ThreadPoolExecutor(40) as pool:
        asked = [pool.submit(running.ask, body=webp(9990)) for _ in range(12)]
        asked += [pool.submit(running.ask, body=webp(5200)) for _ in range(6)]
        asked += [pool.submit(running.ask, body=large) for _ in range(4)]
        words = ["/tag?labels=" + ",".join(some) for some in permutations(WORDS, 4)]
        assert running.ask(body=RED).status == 200
        asked += [pool.submit(running.ask, path=f"{path}&top=1", body=RED) for path in words[:28]]
        statuses = [one.result().status for one in asked]
        assert statuses[:12] == [413] * 12 and set(statuses) <= {200, 413, 503}
        assert statuses[12:22] == [200] * 10
        assert peak_of(running) < 1_000_000_000


class Slow:
    """A tagger that answers when it is let go."""

    batch, workers, labels = 1, 1, LABELS
    runner = SimpleNamespace(side_by_side=1, batch=4)

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.n_decoded, self.last = 0, b""

    def prepare_photo(self, photo, place):
        self.n_decoded, self.last = self.n_decoded + 1, photo
        self.go_on.wait(30)
        return photo

    def work(self, photos):
        return [{"tags": ["red"], "scores": {"red": 0.9}} for _ in photos]


async def called(app, path: str, body: bytes, content_type: str = "") -> tuple[int, dict]:
    """The status and the fields that the application answers to a photo, or to a form of some."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    path, _, query = path.partition("?")
    await app(
        {"type": "http", "method": "POST", "path": path, "query_string": query.encode(),
         "headers": [(b"host", b"localhost"), (b"content-type", content_type.encode())],
         "http_version": "1.1", "root_path": ""},
        receive, send,
    )  # fmt: skip
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_what_is_still_being_loaded_says_so_and_is_there_the_next_time():
    may_load, slow = threading.Event(), Slow()
    slow.go_on.set()

    def load(variant):
        assert may_load.wait(30)
        return slow

    async def ask():
        app = make_app(
            "m",
            LoadedTaggers(load, slow, 3),
            PhotoLimits(bytes=100, seconds=0.2),
            only_here=True,
            traffic=Traffic(),
        )
        first = await called(app, "/tag?boxes=1", b"photo")
        may_load.set()
        while (second := await called(app, "/tag?boxes=1", b"photo"))[0] == 503:
            pass
        return first, second

    first, second = asyncio.run(ask())
    assert (first[0], first[1]["code"]) == (503, "service_unavailable")
    assert "still being loaded" in first[1]["message"]
    assert second == (200, {"tags": ["red"], "scores": {"red": 0.9}})


def test_more_photos_than_are_decoded_at_once_wait_for_their_turn():
    slow = Slow()

    async def ask():
        app = make_app(
            "m",
            LoadedTaggers(None, slow, 3),
            PhotoLimits(bytes=1000, seconds=30),
            only_here=True,
            traffic=Traffic(),
        )
        photos = [asyncio.create_task(called(app, "/tag", b"photo")) for _ in range(MAX_WAITING)]
        while slow.n_decoded < MAX_PHOTOS:
            await asyncio.sleep(0.001)
        last = asyncio.create_task(called(app, "/tag", b"the last"))
        slow.go_on.set()
        return await asyncio.gather(*photos, last)

    assert {status for status, _ in asyncio.run(ask())} == {200}
    assert slow.last == b"the last"


class Quick(Slow):
    """One that answers at once, and that an empty photo is a problem to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on.set()

    def prepare_photo(self, photo, place):
        if not photo:
            raise RecordProblem("no photo", code="unreadable_image")
        return photo


def cannot(variant):
    raise RunProblem("the model cannot do this")


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [("/tag", b"photo", 200), ("/tag", b"", 200), ("/tag?boxes=1", b"photo", 501)],
    ids=["tagged", "no photos", "nothing to tag them"],
)
def test_the_photos_of_a_form_that_was_answered_leave_room_for_others(path, content, status):
    one = form(*[content] * MAX_PHOTOS)

    async def ask():
        taggers, limits = LoadedTaggers(cannot, Quick(), 3), PhotoLimits(bytes=10_000, seconds=30)
        app = make_app("m", taggers, limits, only_here=True, traffic=Traffic())
        for _ in range(MAX_WAITING // MAX_PHOTOS + 1):
            answered = await called(app, path, **one)
            assert answered[0] == status, answered
        return await called(app, "/tag", b"photo")

    assert asyncio.run(ask()) == (200, {"tags": ["red"], "scores": {"red": 0.9}})


def test_language_precision_and_embedding_are_those_of_tag(tmp_path):
    horses = (DATA / "photos" / "horses.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(horses)
    with served("--max-seconds", 100, folder=tmp_path) as running:
        for query, words in (
            ("lang=de", ["--lang", "de"]),
            ("precision=0.6&lang=zh&top=5", ["--precision", "0.6", "--lang", "zh", "--top", "5"]),
            ("embedding=1", ["--embedding"]),
        ):
            (row,) = Ramctl(tmp_path)("tag", "-q", "-f", "jsonl", "a.jpg", *words).rows
            row.pop("image")
            assert running.ask(path=f"/tag?{query}", body=horses).fields == row
        for query, message in (
            ("lang=xx", "language 'xx': the labels have names in de, "),
            ("precision=1", "precision 1 is not between 0 and 1"),
            ("embedding=1&labels=cat", "embedding needs a bundle and its labels"),
        ):
            answer = running.ask(path=f"/tag?{query}", body=horses)
            assert (answer.status, answer.fields["code"]) == (400, "usage")
            assert answer.fields["message"].startswith(message)


def test_names_in_a_language_are_those_of_words_too(server):
    path = "/tag?labels=blue,red&lang=zh&threshold=0.5"
    fields = server.ask(path=path, body=photo("blue")).fields
    assert fields["tags"] == ["蓝色"] == list(fields["scores"]) and fields["tag_language"] == "zh"


@pytest.mark.parametrize("body", [b'{"image": "/etc/passwd"}', b' ["a.jpg"]', b'"a.jpg"'])
def test_who_sends_json_is_asked_for_the_file(server, body):
    answer = server.ask(body=body, content_type="application/json")
    assert (answer.status, answer.fields["code"]) == (400, "bad_request")
    assert "send the file (curl --data-binary @photo.jpg)" in answer.fields["message"]
    assert server.ask(body=RED, content_type="application/json").status == 200


def test_photos_of_the_index_are_found_by_words(searching):
    found = searching.ask("GET", "/search?words=red&top=1").fields
    assert found["notes"] == []
    (row,) = found["photos"]
    assert (row["image"], row["tags"][0]) == ("photos/red.png", "red")
    assert row["score"] > 0 and not {"embedding", "thumbnail"} & row.keys()
    chinese = searching.ask("GET", "/search?words=%E8%93%9D%E8%89%B2&lang=zh&thumbnails=1").fields
    row = chinese["photos"][0]
    assert row["image"] == "photos/blue.png" and row["thumbnail"].startswith("data:image/jpeg;")
    noted = searching.ask("GET", "/search?words=red+xqzzv").fields
    assert noted["notes"] == ["no label for: xqzzv; left out"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("words=xqzzv", "'xqzzv': the model knows no word of it"), ("", "words: "),
        ("words=", "words: "), ("words=" + "a" * 1001, "words: "), ("words=red&top=201", "top: "),
        ("words=red&lang=xx", "language 'xx': "),
        ("words=red&image=/etc/passwd", "'image' is not one"),
    ],
)  # fmt: skip
def test_a_wrong_search_is_told_what_is_wrong(searching, query, message):
    answer = searching.ask("GET", f"/search?{query}")
    assert answer.status == 400 and answer.fields["message"].startswith(message)


def test_without_an_index_a_search_says_how_to_have_one(server):
    answer = server.ask("GET", "/search?words=red")
    assert answer.status == 501 and "--index" in answer.fields["message"]


def test_an_index_that_names_other_files_shows_none_of_them(colours, tmp_path):
    model = with_axes(colours, tmp_path / "colours", np.eye(len(LABELS)))
    (tmp_path / "red.png").write_bytes(RED)
    tag = ["tag", "red.png", "--model", model, "--embedding", "-f", "jsonl"]
    (row,) = Ramctl(tmp_path)(*tag).rows
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    names = ["../secret.txt", "/etc/passwd", "../../../../etc/passwd", "gone.png", "/dev/zero"]
    write_records(tmp_path / "folder/x.jsonl", [row | {"image": name} for name in names])
    with served("--model", model, "--index", "folder/x.jsonl", folder=tmp_path) as running:
        found = running.ask("GET", "/search?words=red&thumbnails=1").fields["photos"]
        assert found and all(row["thumbnail"] is None for row in found)
        write_records(tmp_path / "folder/x.jsonl", [row | {"image": "other.png"}] * 5)
        answer = running.ask("GET", "/search?words=red")
        assert answer.status == 503 and "has changed since it was read" in answer.fields["message"]
        (tmp_path / "folder/x.jsonl").unlink()
        answer = running.ask("GET", "/search?words=red")
        assert answer.status == 503 and "x.jsonl" in answer.fields["message"]


def test_a_page_that_is_allowed_may_ask(searching):
    preflight = {"access_control_request_method": "POST", "origin": ORIGIN}
    allowed = searching.ask("OPTIONS", **preflight, access_control_request_headers="content-type")
    assert allowed.status == 200
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert "Content-Type" in allowed.headers["access-control-allow-headers"]
    for answer in (allowed, searching.ask(body=RED, origin=ORIGIN), searching.ask(origin=ORIGIN)):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in answer.headers["vary"]
    assert searching.ask(body=RED, origin=ORIGIN).headers["access-control-expose-headers"]
    for other in ("https://app.example.evil", "http://app.example", "null"):
        for method, headers in (
            ("OPTIONS", preflight | {"origin": other}),
            ("POST", {"origin": other}),
        ):
            answer = searching.ask(method, body=RED, **headers)
            assert answer.status == 403
            assert "access-control-allow-origin" not in answer.headers
    assert searching.ask(body=RED, origin=ORIGIN, host="evil.example").status == 403
    assert "access-control-allow-origin" not in searching.ask(body=RED).headers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--allow-origin", "*"], "--allow-origin *: expected https://NAME[:PORT]"),
        (["--allow-origin", "https://a.example/page"], "expected https://NAME[:PORT]"),
        (["--allow-origin", "null"], "expected https://NAME[:PORT]"),
        (["--device", "cpu,cpu"], "--device cpu,cpu: a server has one device"),
    ],
)
def test_wrong_options_are_a_line(ramctl, words, message):
    done = ramctl("serve", "--port", 0, *words)
    assert done.returncode == 2 and message in done.messages and done.messages.count("\n") == 1


def test_requests_are_counted_and_logged(colours, tmp_path):
    with served("--model", colours, "--access-log", folder=tmp_path) as running:
        assert running.ask(path="/tag?labels=my+secret", body=RED).status == 400
        assert running.ask(body=RED).status == 200
        assert running.ask(**form(RED, b"no photo")).status == 200
        for name in ("a", "b"):
            assert running.ask("GET", f'/{name}"%0A').status == 404
        text = running.ask("GET", "/metrics").text
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
    assert all(re.fullmatch(r'[a-z_]+\{([a-z]+="[^"\\]+",?)+\}', name) for name in counts)
    seconds = {name: counts.pop(name) for name in [*counts] if "seconds" in name}
    assert counts == {
        'ramctl_photos_total{outcome="failed"}': "1", 'ramctl_photos_total{outcome="tagged"}': "2",
        'ramctl_requests_total{path="/tag",status="200"}': "2",
        'ramctl_requests_total{path="/tag",status="400"}': "1",
        'ramctl_requests_total{path="other",status="404"}': "2",
    }  # fmt: skip
    assert all(float(number) > 0 for number in seconds.values())
    assert "# TYPE ramctl_requests_total counter" in text.splitlines()
    log = [json.loads(line) for line in running.process.stdout.read().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in log] == [
        ("POST", "/tag", 400), ("POST", "/tag", 200), ("POST", "/tag", 200),
        ("GET", '/a"\n', 404), ("GET", '/b"\n', 404), ("GET", "/metrics", 200),
    ]  # fmt: skip
    assert all(line["client"] == "127.0.0.1" and line["seconds"] >= 0 for line in log)
    assert "secret" not in json.dumps(log)
