"""The client: what ends a run, what is one photo's fault, and what it hides."""

import pytest
from PIL import Image

from ramctl.captions.caption_photos import Captioner
from ramctl.captions.endpoint import Endpoint
from ramctl.errors import RunProblem
from tests.captions.recorded_server import KEY
from tests.support import DATA, problem_of

MAX_FAILURES = MAX_RETRIES = 5  # as the manual says
HORSES = DATA / "photos" / "horses.jpg"
KITE = DATA / "photos" / "kite.jpg"
HORSES_CAPTION = "Two black horses are grazing on a green hill under white clouds."


def captioner(chat) -> Captioner:
    return Captioner(Endpoint(chat.url), "tiny-vl")


def failure(do, *arguments) -> str:
    with pytest.raises(RunProblem) as caught:
        do(*arguments)
    assert KEY not in caught.value.message
    return caught.value.message


def test_a_photo_has_its_caption_in_python(chat):
    one = captioner(chat)
    assert one.caption(HORSES) == one.caption(HORSES.read_bytes()) == HORSES_CAPTION
    assert one.endpoint.tokens == {"tokens in": 2000, "tokens out": 40}
    path, headers, body = chat.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny-vl", 0, 2048)


def test_the_client_tries_again(chat):
    chat.faults = ["503", "429", "closed"]
    assert captioner(chat).caption(HORSES) == HORSES_CAPTION


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "500 crashed with ***"), ("closed", "disconnected"), ("garbage", ""), ("page", ""),
        ("error of 200", ""), ("no choices", ""),
    ],
)  # fmt: skip
def test_five_failures_of_the_server_in_a_row_end_the_run(chat, fault, reason):
    one = captioner(chat)
    one.caption(HORSES)
    chat.fault_of = lambda photo: fault
    for _ in range(MAX_FAILURES - 1):
        assert problem_of(one.caption, HORSES).code == "no_caption"
    assert reason in failure(one.caption, HORSES)


def test_a_photo_that_crashes_the_server_alone_is_rejected(chat):
    one = captioner(chat)
    kite = chat.caption_of(Image.open(KITE))
    chat.fault_of = lambda photo: "500" if chat.caption_of(photo) == kite else ""
    for _ in range(MAX_FAILURES):
        assert problem_of(one.caption, KITE).code == "no_caption"
        assert one.caption(HORSES) == HORSES_CAPTION
    assert len(chat.requests) == MAX_FAILURES * (MAX_RETRIES + 2)


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


def test_nobody_at_the_endpoint_ends_the_run_at_once(chat):
    nobody = Captioner(Endpoint("http://127.0.0.1:9/v1"), "tiny-vl")
    assert (
        failure(nobody.caption, HORSES) == "http://127.0.0.1:9/v1: [Errno 111] Connection refused"
    )


def test_settings_that_a_model_refuses_are_left_out(chat):
    chat.refused_settings = refused = {"max_tokens", "temperature"}
    one = captioner(chat)
    assert one.caption(HORSES) == one.caption(HORSES) == HORSES_CAPTION
    assert len(chat.requests) == 2 + len(refused)
    sent = chat.requests[-1][2]
    assert "max_completion_tokens" in sent and not refused & sent.keys()


def test_no_proxy_gets_what_stays_on_this_machine(chat, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert captioner(chat).caption(HORSES) == HORSES_CAPTION
