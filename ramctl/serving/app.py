"""The page and `POST /tag`: photos come as bytes, nothing of this machine is read for anyone."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from importlib.resources import files
from typing import NamedTuple, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from ramctl.errors import RamctlError, RecordProblem, UsageProblem
from ramctl.pages import render
from ramctl.photos.limits import PhotoLimits
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject
from ramctl.serving.batcher import MOST_PHOTOS, Batchers, Wanted
from ramctl.tagging.selection import DECIMALS
from ramctl.tagging.tagger import Tagger, TagResult

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_HELD = 6  # times the limit of one request's bytes: of all of them together
MOST_WAITING = 256  # photos of all requests, whose bytes are counted besides
MOST_WORDS = 100
MOST_LETTERS = 100  # of a word
Found = TypeVar("Found")
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


class Question(NamedTuple):
    """What a request asks of its photo."""

    wanted: Wanted
    threshold: float | None  # None: the model's
    top: int | None


@dataclass(slots=True)
class Held:
    """What all requests have in memory together."""

    n_bytes: int = 0
    photos: int = 0

    @asynccontextmanager
    async def body(self, request: Request, limits: PhotoLimits) -> AsyncIterator[bytes]:
        """The body of a request, held until the end."""
        blocks, n_bytes = [], 0
        try:
            async for block in _blocks(request, limits):
                n_bytes += len(block)
                self.n_bytes += len(block)
                if self.n_bytes > MOST_HELD * limits.bytes:
                    raise _busy("too much is sent at once; try again")
                blocks.append(block)
            content = b"".join(blocks)
            blocks.clear()
            yield content
        finally:
            self.n_bytes -= n_bytes


def make_app(model: str, batchers: Batchers, limits: PhotoLimits, *, only_here: bool) -> Starlette:
    """The application; `only_here` refuses requests that name another host than this machine.

    `limits` are those of a photo; its seconds are for sending it, and then for tagging it.
    """
    held = Held()

    async def page(request: Request) -> Response:
        text = render("serve.html", model=model, most_bytes=limits.bytes)
        return HTMLResponse(text, headers=_HEADERS)

    async def health(request: Request) -> Response:
        return _json({"status": "ready", "model": model})

    async def description(request: Request) -> Response:
        content = (files("ramctl.serving") / "openapi.json").read_bytes()
        return Response(content, media_type="application/json", headers=_HEADERS)

    async def tag(request: Request) -> Response:
        question = _question(request)
        async with held.body(request, limits) as body, AsyncExitStack() as stack:
            photos = _photos(request, body)
            if held.photos + len(photos) > MOST_WAITING:
                raise _busy("too many photos at once; try again")
            held.photos += len(photos)
            stack.callback(lambda: setattr(held, "photos", held.photos - len(photos)))
            opening = stack.enter_async_context(batchers.using(question.wanted))
            batcher = await _in_time(opening, limits, "what this needs is still being loaded")
            late = f"the photo was not tagged within {limits.seconds:g} seconds"
            each = (_in_time(batcher.tag(photo), limits, late) for photo in photos)
            found = await asyncio.gather(*each, return_exceptions=True)
        if not _is_form(request) and isinstance(found[0], BaseException):
            raise found[0]
        answers = [
            _problem(request, one)[0] if isinstance(one, BaseException)
            else _answer(one, batcher.tagger, question) for one in found
        ]  # fmt: skip
        return _json(answers if _is_form(request) else answers[0])

    return Starlette(
        routes=[
            Route("/", page), Route("/healthz", health), Route("/openapi.json", description),
            Route("/tag", tag, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, limits=limits, only_here=only_here)],
        exception_handlers={
            HTTPException: _on_problem, RamctlError: _on_problem,
            # What it says may name files; it is on standard error.
            Exception: lambda *_: _json({"code": "failed", "message": "internal error"}, 500),
        },
    )  # fmt: skip


async def _in_time(doing: Awaitable[Found], limits: PhotoLimits, late: str) -> Found:
    try:
        async with asyncio.timeout(limits.seconds):
            return await doing
    except TimeoutError as error:
        raise _busy(late) from error


def _busy(message: str) -> HTTPException:
    return HTTPException(503, message, {"retry-after": "1"})


class _Guard:
    """Refuses what a web page of somebody else makes a browser send.

    Such a page can have its own name lead here (DNS rebinding), but not send another name than its
    own in the headers Host and Origin.
    """

    def __init__(self, app: ASGIApp, limits: PhotoLimits, only_here: bool) -> None:
        self._app, self._limits, self._only_here = app, limits, only_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (problem := self._problem(Headers(scope=scope))):
            app = _json({"code": "forbidden", "message": problem}, 403)
        is_sent = False

        async def take() -> Event:
            nonlocal is_sent
            message = await receive()
            is_sent = not message.get("more_body")
            return message

        async def answer(message: Event) -> None:
            """Send, and end only when the request was read: who still sends would see no answer."""
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_sent or not is_last:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.seconds):
                    while not is_sent:
                        await take()
            await send({"type": "http.response.body"})

        await app(scope, take, answer)

    def _problem(self, headers: Headers) -> str | None:
        host, origins = headers.get("host", ""), headers.getlist("origin")
        if self._only_here and not _HERE.fullmatch(host):
            return "the header Host names another machine"
        if any(origin not in (f"http://{host}", f"https://{host}") for origin in origins):
            return "the request comes from another page"
        return None


def _question(request: Request) -> Question:
    asked = request.query_params
    if unknown := set(asked) - _PARAMETERS:
        raise HTTPException(400, f"{min(unknown)!r} is not one of {', '.join(sorted(_PARAMETERS))}")
    words = [word.strip() for text in asked.getlist("labels") for word in text.split(",")]
    words = list(dict.fromkeys(filter(None, words)))
    if len(words) > MOST_WORDS or any(len(word) > MOST_LETTERS for word in words):
        raise HTTPException(400, f"labels: at most {MOST_WORDS} of {MOST_LETTERS} letters")
    switches = {name: _YES_NO.get(asked.get(name, "0").lower()) for name in ("boxes", "caption")}
    for name, is_on in switches.items():
        if is_on is None:
            raise HTTPException(400, f"{name}: neither 1 nor 0")
    threshold, top = _number(asked, "threshold"), _number(asked, "top")
    if threshold is not None and not 0 <= threshold <= 1:
        raise HTTPException(400, "threshold: not a number from 0 to 1")
    if top is not None and (top < 1 or top % 1):
        raise HTTPException(400, "top: not a whole number from 1")
    wanted = Wanted(tuple(words), bool(switches["boxes"]), bool(switches["caption"]))
    return Question(wanted, threshold, None if top is None else int(top))


def _number(asked: QueryParams, name: str) -> float | None:
    try:
        return float(asked[name]) if name in asked else None
    except ValueError as error:
        raise HTTPException(400, f"{name}: {asked[name][:20]!r} is not a number") from error


async def _blocks(request: Request, limits: PhotoLimits) -> AsyncIterator[bytes]:
    declared = request.headers.get("content-length", "0")
    n_bytes = 0
    _check_size(int(declared) if declared.isdecimal() else 0, limits)
    try:
        async with asyncio.timeout(limits.seconds):
            async for block in request.stream():
                n_bytes += len(block)
                _check_size(n_bytes, limits)
                yield block
    except TimeoutError as error:
        message = f"the photo was not sent within {limits.seconds:g} seconds"
        raise HTTPException(408, message) from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the photo was not sent to its end") from error


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


def _photos(request: Request, body: bytes) -> list[bytes]:
    """The photo that is the body as it is, or those of a form: each of its parts is one."""
    photos = [body] if body else []
    if _is_form(request):
        head = Message()
        head["content-type"] = request.headers["content-type"]
        between = b"\r\n--" + str(head.get_boundary("")).encode()
        parts = (b"\r\n" + body).split(between)[1:]
        if len(parts) < 2 or not parts[-1].startswith(b"--"):
            raise HTTPException(400, "the form has no photo in it, or no end")
        if len(parts) > MOST_PHOTOS + 1:
            raise HTTPException(400, f"the form has more than {MOST_PHOTOS} photos")
        photos = [part.partition(b"\r\n\r\n")[2] for part in parts[:-1]]
    if not photos:
        raise HTTPException(400, "no photo: send its bytes as the body of the request")
    return photos


def _check_size(n_bytes: int, limits: PhotoLimits) -> None:
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
    for name in ("salience", "boxes"):
        if name in record:
            record[name] = {tag: value for tag, value in record[name].items() if tag in scores}
    return record


def _above(threshold: float, tags: list[str], dense: list[float]) -> dict[str, float]:
    """The tags above a threshold by falling score; of a doubled one the highest."""
    found: dict[str, float] = {}
    for score, tag in sorted(zip(dense, tags, strict=True), key=lambda pair: -pair[0]):
        if score > threshold:
            found.setdefault(tag, round(score, DECIMALS))
    return found


def _json(fields: JsonObject | list[JsonObject], status: int = 200) -> Response:
    return Response(dumps(fields), status, media_type="application/json", headers=_HEADERS)


def _problem(request: Request, problem: BaseException) -> tuple[JsonObject, int]:
    if isinstance(problem, HTTPException):
        code = HTTPStatus(problem.status_code).name.lower()
        return {"code": code, "message": problem.detail}, problem.status_code
    if not isinstance(problem, RamctlError):
        raise problem
    if isinstance(problem, RecordProblem):
        code, status = problem.code, 413 if problem.code == "too_large" else 422
    elif isinstance(problem, UsageProblem):
        code, status = "usage", 400
    else:
        code, status = "failed", 400 if "labels" in request.query_params else 501
    return {"code": code, "message": problem.message}, status


def _on_problem(request: Request, problem: Exception) -> Response:
    answer = _json(*_problem(request, problem))
    answer.headers.update(getattr(problem, "headers", None) or {})
    return answer
