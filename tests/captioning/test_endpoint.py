"""The client: what it waits out, what ends a run, what is one photo's fault, and what it hides."""

import threading
import time

import pytest
from PIL import Image

from ramctl.captions import endpoint as module
from ramctl.captions.caption_photos import Captioner
from ramctl.captions.endpoint import Endpoint
from ramctl.errors import RunProblem, UsageProblem
from tests.captioning.recorded_server import CAPTION, KEY
from tests.support import DATA, problem_of

HORSES = DATA / "photos" / "horses.jpg"
KITE = DATA / "photos" / "kite.jpg"
HORSES_CAPTION = "Two black horses are grazing on a green hill under white clouds."

pytestmark = pytest.mark.usefixtures("hasty")


def captioner(chat, **options) -> Captioner:
    return Captioner(Endpoint(chat.url, **options), "tiny-vl")


def failure(do, *arguments) -> str:
    with pytest.raises(RunProblem) as caught:
        do(*arguments)
    assert KEY not in caught.value.message
    return caught.value.message


def test_a_photo_has_its_caption_in_python(chat):
    one = captioner(chat)
    assert one.caption(HORSES) == one.caption(HORSES.read_bytes()) == HORSES_CAPTION
    assert one.endpoint.tokens == {"tokens_in": 2000, "tokens_out": 40}
    path, headers, body = chat.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny-vl", 0, 2048)
    assert "n" not in body


@pytest.mark.parametrize(
    "faults", [["500"] * 7, ["503", "closed", "503"], ["garbage", "page"], ["error of 200"],
               ["no choices", "closed"]]
)  # fmt: skip
def test_what_passes_is_waited_out(chat, faults):
    one = captioner(chat)
    one.caption(HORSES)
    chat.faults = [*faults]
    assert one.caption(KITE) != HORSES_CAPTION
    assert chat.faults == []


def test_a_rate_limit_waits_as_long_as_the_server_asks(chat):
    chat.faults, begun = ["429"], time.monotonic()
    assert captioner(chat).caption(HORSES) == HORSES_CAPTION
    assert time.monotonic() - begun >= 0.9


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "429 slow down"), ("503", "503 loading the model"), ("500", "500 crashed with ***"),
        ("garbage", 'not a chat completion: {"choices"'),
        ("page", "not a chat completion: <html>Please log in"), ("number", "expected str"),
        ("error of 200", '"message": "upstream is down"'), ("no choices", "not a chat completion"),
    ],
)  # fmt: skip
def test_an_outage_ends_the_run_and_is_no_reject(chat, fault, reason, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    said = []
    one = captioner(chat, notify=said.append)
    one.caption(HORSES)
    chat.fault_of = lambda photo: fault
    assert reason in failure(one.caption, HORSES)
    if fault != "429":  # for a second it has patience only
        assert len(said) == 1 and said[0].endswith("; trying for up to 0 s")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("401", "401 Incorrect API key provided: ***"), ("moved", "307"),
        ("404", "404 model 'x' not found; does the URL end in /v1?"),
    ],
)  # fmt: skip
def test_a_wrong_key_model_or_place_ends_the_run_at_once(chat, fault, reason):
    chat.fault_of = lambda photo: fault
    assert reason in failure(captioner(chat).caption, HORSES)
    assert len(chat.requests) == 1


def test_nobody_at_the_endpoint_is_one_line_after_one_round(chat, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 60)
    chat.stop()
    begun = time.monotonic()
    message = failure(captioner(chat).caption, HORSES)
    chat.start()
    assert message == f"{chat.url}: [Errno 111] Connection refused"
    assert time.monotonic() - begun < 10


def test_a_page_that_is_no_endpoint_ends_the_run_at_once(chat, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 60)
    chat.fault_of = lambda photo: "page"
    assert "<html>" in failure(captioner(chat).caption, HORSES)


def test_a_server_that_hangs_ends_the_run(chat):
    one = captioner(chat, timeout=0.2)
    one.caption(HORSES)
    chat.delay_s = 0.6
    assert failure(one.caption, HORSES) == f"{chat.url}: no answer in 0.2 s"


def test_a_server_that_comes_back_goes_on_in_all_threads(chat, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 30)
    one, found = captioner(chat), []
    one.caption(HORSES)
    chat.stop()
    threads = [threading.Thread(target=lambda: found.append(one.caption(HORSES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    assert found == []
    chat.start()
    for thread in threads:
        thread.join()
    assert found == [HORSES_CAPTION] * 4


@pytest.mark.parametrize(
    "fault",
    ["500", "slow", "drip", "closed", "garbage", "half an answer", "half, then nothing"],
)
def test_a_photo_that_crashes_or_stalls_the_server_alone_is_rejected(chat, fault):
    """While others pass it was no outage."""
    one = captioner(chat, timeout=0.3)
    if fault == "garbage":  # of an endpoint that has answered before
        one.caption(HORSES)
    kite = chat.caption_of(Image.open(KITE))
    chat.fault_of = lambda photo: fault if chat.caption_of(photo) == kite else ""
    for _ in range(2):
        problem = problem_of(one.caption, KITE)
        assert problem.code == "no_caption" and "(other photos pass)" in problem.message
        assert one.caption(HORSES) == HORSES_CAPTION


@pytest.mark.parametrize(
    ("form", "caption"),
    [("parts", CAPTION), ("half a character", CAPTION)],
)
def test_an_answer_in_another_form_is_text(chat, form, caption):
    chat.faults = [form]
    assert captioner(chat).caption(HORSES) == caption


def test_after_an_outage_the_same_endpoint_is_asked_again(chat, monkeypatch):
    one = captioner(chat)
    chat.faults = ["404"]
    assert "404" in failure(one.caption, HORSES)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    assert one.caption(HORSES) == HORSES_CAPTION


@pytest.mark.parametrize(
    ("fault", "code"),
    [("400", "no_caption"), ("400 filter", "refused"), ("refusal", "refused"),
     ("empty", "no_caption"), ("cut early", "no_caption")],
)  # fmt: skip
def test_what_is_wrong_with_one_photo_is_its_reject(chat, fault, code):
    one = captioner(chat)
    chat.faults = [fault]
    assert problem_of(one.caption, HORSES).code == code
    assert one.caption(HORSES) == HORSES_CAPTION


def test_an_endpoint_that_takes_no_photo_ends_the_run(chat):
    """As with a model that it does not have, or that does not see."""
    one, chat.fault_of = captioner(chat), lambda photo: "400"
    assert failure(one.caption, HORSES) == f"{chat.url}: 400 the image is too small"
    chat.fault_of = lambda photo: "400" if photo.size != (64, 64) else ""
    assert problem_of(captioner(chat).caption, HORSES).code == "no_caption"
    assert len(chat.requests) == 4


@pytest.mark.parametrize(
    "refused", [{"temperature"}, {"max_tokens"}, {"max_tokens", "temperature"}]
)
def test_settings_that_a_model_refuses_are_left_out(chat, refused):
    chat.refused_settings = refused
    one = captioner(chat)
    assert one.caption(HORSES) == one.caption(HORSES) == HORSES_CAPTION
    assert len(chat.requests) == 2 + len(refused)
    sent = chat.requests[-1][2]
    assert not refused & sent.keys()
    assert ("max_completion_tokens" in sent) == ("max_tokens" in refused)


def test_several_answers_without_a_photo(chat, monkeypatch):
    from tests.captioning import recorded_server

    monkeypatch.setattr(recorded_server, "photo_of", lambda body: Image.open(KITE))
    chat.caption_of = lambda photo: CAPTION
    (answer,) = Endpoint(chat.url).answers("What is a kite?", model="m", n=3)
    assert (answer.text, answer.is_cut, answer.is_refused) == (CAPTION, False, False)
    assert chat.requests[0][2]["n"] == 3


@pytest.mark.parametrize(
    "url",
    [
        "localhost:11434",
        "ftp://host/v1",
        "http://",
        "file:///etc",
        "http://[::1",
        "http://a:b/v1",
        "http://a b/v1",
        "http://a:99999/v1",
    ],
)
def test_another_url_is_wrong_usage(url):
    with pytest.raises(UsageProblem, match="not a URL such as http://localhost:11434/v1"):
        Endpoint(url)


@pytest.mark.parametrize(
    ("url", "is_local"),
    [("http://localhost:1/v1", True), ("http://127.0.0.2/v1", True), ("http://[::1]:1/v1", True),
     ("http://10.0.0.1/v1", False), ("https://api.openai.com/v1", False),
     ("http://localhost.example/v1", False)],
)  # fmt: skip
def test_what_is_on_this_machine(url, is_local):
    assert Endpoint(url).is_local == is_local


@pytest.mark.parametrize("key", ["sk-1 2", "sk-\n1", "sk-\xe9"])
def test_a_key_that_cannot_be_sent_is_wrong_usage(key, monkeypatch):
    """The client's message would hold it."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageProblem, match="OPENAI_API_KEY: a key has no blanks") as caught:
        Endpoint()
    assert key not in caught.value.message


def test_a_line_end_after_the_key_is_none_of_it(chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    captioner(chat).caption(HORSES)
    assert chat.requests[0][1]["authorization"] == f"Bearer {KEY}"


def test_where_the_endpoint_is_by_default(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert Endpoint().url == "http://localhost:11434/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", "https://models.example/v1/")
    assert Endpoint().url == "https://models.example/v1"
    assert Endpoint("http://localhost:1234/v1").url == "http://localhost:1234/v1"


def test_no_proxy_gets_what_stays_on_this_machine(chat, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert captioner(chat).caption(HORSES) == HORSES_CAPTION
