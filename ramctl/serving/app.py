"""The page and `POST /tag`: photos come as bytes, nothing of this machine is read for anyone."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ramctl.errors import RamctlError, RecordProblem, UsageProblem
from ramctl.pages.render import render
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject
from ramctl.serving.batcher import Batchers, Wanted
from ramctl.tagging.selection import DECIMALS
from ramctl.tagging.tag_result import TagResult
from ramctl.tagging.tagger import Tagger

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_PHOTOS = 32  # held at once; who sends another one is told to wait
MOST_WORDS = 100
MOST_LETTERS = 100  # of a word
_PARAMETERS = frozenset({"threshold", "top", "labels", "boxes", "caption"})
_HERE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_LEFT_OUT = frozenset({"image", "dense", "labels"})
_YES_NO = {"": True, "1": True, "true": True, "0": False, "false": False}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src blob:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost."""

    bytes: int  # of a photo's file
    seconds: float  # for sending it, and then for tagging it


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks of its photo."""

    wanted: Wanted
    threshold: float | None  # None: the model's
    top: int | None


def make_app(model: str, batchers: Batchers, limits: Limits, *, only_here: bool) -> Starlette:
    """The application; `only_here` refuses requests that name another host than this machine."""
    places = asyncio.Semaphore(MOST_PHOTOS)

    async def page(request: Request) -> Response:
        values = {"model": model, "most_bytes": limits.bytes}
        return HTMLResponse(render("serve.html", **values), headers=_HEADERS)

    async def tag(request: Request) -> Response:
        question = _question(request)
        if places.locked():
            raise HTTPException(503, "too many photos at once; try again", {"retry-after": "1"})
        async with places:
            photo = await _photo(request, limits)
            batcher = await batchers.get(question.wanted)
            try:
                async with asyncio.timeout(limits.seconds):
                    result = await batcher.tag(photo)
            except TimeoutError as error:
                message = f"the photo was not tagged within {limits.seconds:g} seconds"
                raise HTTPException(503, message, {"retry-after": "1"}) from error
        return _json(_answer(result, batcher.tagger, question))

    return Starlette(
        routes=[Route("/", page), Route("/tag", tag, methods=["POST"])],
        middleware=[Middleware(_Guard, only_here=only_here)],
        exception_handlers={
            HTTPException: _on_http_problem, RecordProblem: _on_record_problem,
            RamctlError: _on_problem, Exception: _on_bug,
        },
    )  # fmt: skip


class _Guard:
    """Refuses what a web page of somebody else makes a browser send.

    Such a page can have its own name lead here (DNS rebinding), but not send another name than its
    own in the headers Host and Origin.
    """

    def __init__(self, app: ASGIApp, only_here: bool) -> None:
        self._app = app
        self._only_here = only_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (problem := self._problem(Headers(scope=scope))):
            app = _json({"code": "forbidden", "message": problem}, 403)
        await app(scope, receive, send)

    def _problem(self, headers: Headers) -> str | None:
        host, origins = headers.get("host", ""), headers.getlist("origin")
        if self._only_here and not _HERE.fullmatch(host):
            return "the header Host names another machine"
        if any(origin not in (f"http://{host}", f"https://{host}") for origin in origins):
            return "the request comes from another page"
        return None


def _question(request: Request) -> Question:
    given = request.query_params
    if unknown := set(given) - _PARAMETERS:
        known = ", ".join(sorted(_PARAMETERS))
        raise HTTPException(400, f"{min(unknown)!r} is not one of {known}")
    words = [word.strip() for text in given.getlist("labels") for word in text.split(",")]
    words = list(dict.fromkeys(filter(None, words)))
    if len(words) > MOST_WORDS or any(len(word) > MOST_LETTERS for word in words):
        raise HTTPException(400, f"labels: at most {MOST_WORDS} of {MOST_LETTERS} letters")
    wanted = Wanted(tuple(words), _is_asked(given, "boxes"), _is_asked(given, "caption"))
    threshold = _number(given, "threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise HTTPException(400, "threshold: not a number from 0 to 1")
    top = _number(given, "top")
    if top is not None and (top < 1 or top % 1):
        raise HTTPException(400, "top: not a whole number from 1")
    return Question(wanted, threshold, None if top is None else int(top))


def _is_asked(given: Mapping[str, str], name: str) -> bool:
    try:
        return name in given and _YES_NO[given[name].lower()]
    except KeyError as error:
        raise HTTPException(400, f"{name}: neither 1 nor 0") from error


def _number(given: Mapping[str, str], name: str) -> float | None:
    try:
        return float(given[name]) if name in given else None
    except ValueError as error:
        raise HTTPException(400, f"{name}: {given[name][:20]!r} is not a number") from error


async def _photo(request: Request, limits: Limits) -> bytes:
    """The body: the photo's file as it is."""
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(415, "a form: send the photo itself (curl --data-binary @photo.jpg)")
    content = bytearray()
    declared = request.headers.get("content-length", "0")
    _check_size(int(declared) if declared.isdecimal() else 0, limits)
    try:
        async with asyncio.timeout(limits.seconds):
            async for block in request.stream():
                content += block
                _check_size(len(content), limits)
    except TimeoutError as error:
        message = f"the photo was not sent within {limits.seconds:g} seconds"
        raise HTTPException(408, message) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the photo was not sent to its end") from error
    if not content:
        raise HTTPException(400, "no photo: send its bytes as the body of the request")
    return bytes(content)


def _check_size(n_bytes: int, limits: Limits) -> None:
    if n_bytes > limits.bytes:
        raise RecordProblem(f"the photo has more than {limits.bytes} bytes", code="too_large")


def _answer(result: TagResult, tagger: Tagger, question: Question) -> JsonObject:
    """The record that `ramctl tag` writes, without a name."""
    record = {key: value for key, value in result.record.items() if key not in _LEFT_OUT}
    scores = result.scores
    if question.threshold is not None or question.wanted.words:
        scores = _above(question.threshold or 0.0, tagger.labels.tags, result.dense or [])
    scores = dict(list(scores.items())[: question.top])
    record |= {"tags": list(scores), "scores": scores}
    if "boxes" in record:
        record["boxes"] = {tag: box for tag, box in record["boxes"].items() if tag in scores}
    return record


def _above(threshold: float, tags: list[str], dense: list[float]) -> dict[str, float]:
    """The tags above a threshold by falling score; of a doubled one the highest."""
    falling = sorted(zip(dense, tags, strict=True), key=lambda pair: -pair[0])
    found: dict[str, float] = {}
    for score, tag in falling:
        if score > threshold:
            found.setdefault(tag, round(score, DECIMALS))
    return found


def _json(fields: JsonObject, status: int = 200) -> Response:
    return Response(dumps(fields), status, media_type="application/json", headers=_HEADERS)


def _on_http_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    code = HTTPStatus(problem.status_code).name.lower()
    answer = _json({"code": code, "message": problem.detail}, problem.status_code)
    answer.headers.update(problem.headers or {})
    return answer


def _on_record_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RecordProblem)
    fields = {"code": problem.code, "message": problem.message}
    return _json(fields, 413 if problem.code == "too_large" else 422)


def _on_problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RamctlError)
    is_asked_wrong = isinstance(problem, UsageProblem) or "labels" in request.query_params
    status = 400 if is_asked_wrong else 501
    return _json({"code": problem.code, "message": problem.message}, status)


def _on_bug(request: Request, problem: Exception) -> Response:
    # What it says may name files; it is on standard error.
    return _json({"code": "failed", "message": "internal error"}, 500)
