"""The page and `POST /tag`: photos come as bytes, and no request can name a file."""

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

from ramctl.decide.selection import DECIMALS
from ramctl.errors import RamctlError, RecordProblem, UsageProblem
from ramctl.pages import render
from ramctl.photos.limits import PhotoLimits
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject
from ramctl.serving.loaded_taggers import MAX_PHOTOS, LoadedTaggers, Variant
from ramctl.tagging.tagger import Tagger, TagResult

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODIES = 6  # bytes of all requests together, as a multiple of the limit of one
MAX_WAITING = 256  # photos of all requests that are decoded or tagged; others wait for these
MAX_WORDS = 100
MAX_LETTERS = 100  # of a word
Result = TypeVar("Result")
_PARAMETERS = frozenset({"threshold", "top", "labels", "boxes", "caption"})
_THIS_MACHINE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_OMITTED = frozenset({"image", "dense", "labels"})
_YES_NO = {"": True, "1": True, "true": True, "0": False, "false": False}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src blob:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Query(NamedTuple):
    """The parameters of a request."""

    variant: Variant
    threshold: float | None  # None: the model's
    top: int | None


@dataclass(slots=True)
class Bodies:
    """The bodies of all requests that are in memory."""

    limits: PhotoLimits
    n_bytes: int = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; HTTPException or RecordProblem where it is refused."""
        blocks, n_bytes, seconds = [], 0, self.limits.seconds
        declared = request.headers.get("content-length", "0")
        try:
            try:
                async with asyncio.timeout(seconds):
                    self._check(int(declared) if declared.isdecimal() else 0)
                    async for block in request.stream():
                        blocks.append(block)
                        n_bytes += len(block)
                        self.n_bytes += len(block)
                        self._check(n_bytes)
            except TimeoutError as error:
                message = f"the photo was not sent within {seconds:g} seconds"
                raise HTTPException(408, message) from error
            except ClientDisconnect as error:
                raise HTTPException(400, "the photo was not sent to its end") from error
            content = b"".join(blocks)
            blocks.clear()
            yield content
        finally:
            self.n_bytes -= n_bytes

    def _check(self, n_bytes: int) -> None:
        if n_bytes > self.limits.bytes:
            message = f"the photo has more than {self.limits.bytes} bytes"
            raise RecordProblem(message, code="too_large")
        if self.n_bytes > MAX_BODIES * self.limits.bytes:
            raise _busy("too much is sent at once; try again")


def make_app(
    model: str, taggers: LoadedTaggers, limits: PhotoLimits, *, only_here: bool
) -> Starlette:
    """The application; `only_here` refuses requests that name another host than this machine.

    `limits` are those of a photo; its seconds are for sending it, and again for tagging it.
    """
    bodies, slots = Bodies(limits), asyncio.Semaphore(MAX_WAITING)

    async def page(request: Request) -> Response:
        text = render("serve.html", model=model, max_bytes=limits.bytes)
        return HTMLResponse(text, headers=_HEADERS)

    async def health(request: Request) -> Response:
        return _json({"status": "ready", "model": model})

    async def description(request: Request) -> Response:
        content = (files("ramctl.serving") / "openapi.json").read_bytes()
        return Response(content, media_type="application/json", headers=_HEADERS)

    async def tag(request: Request) -> Response:
        query = _query(request)
        async with bodies.read(request) as body, AsyncExitStack() as stack:
            photos = _photos(request, body)
            opening = stack.enter_async_context(taggers.using(query.variant))
            shared = await _in_time(opening, limits, "what this needs is still being loaded")

            async def in_turn(photo: bytes) -> TagResult:
                async with slots:
                    return await shared.tag(photo)

            late = f"the photo was not tagged within {limits.seconds:g} seconds"
            each = (_in_time(in_turn(photo), limits, late) for photo in photos)
            results = await asyncio.gather(*each, return_exceptions=True)
        if not _is_form(request) and isinstance(results[0], BaseException):
            raise results[0]
        answers = [
            _problem(request, result)[0] if isinstance(result, BaseException)
            else _answer(result, shared.tagger, query) for result in results
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
            # Its message may name files; it is printed on standard error.
            Exception: lambda *_: _json({"code": "failed", "message": "internal error"}, 500),
        },
    )  # fmt: skip


async def _in_time(task: Awaitable[Result], limits: PhotoLimits, late: str) -> Result:
    try:
        async with asyncio.timeout(limits.seconds):
            return await task
    except TimeoutError as error:
        raise _busy(late) from error


def _busy(message: str) -> HTTPException:
    return HTTPException(503, message, {"retry-after": "1"})


class _Guard:
    """Refuses what other people's web pages make a browser send.

    Such a page can make its own name lead here (DNS rebinding), but the headers Host and Origin
    then still hold that name.
    """

    def __init__(self, app: ASGIApp, limits: PhotoLimits, only_here: bool) -> None:
        self._app, self._limits, self._only_here = app, limits, only_here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http" and (problem := self._problem(Headers(scope=scope))):
            app = _json({"code": "forbidden", "message": problem}, 403)
        is_read = False

        async def take() -> Event:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body")
            return message

        async def answer(message: Event) -> None:
            """Send, but end only after the whole request was read, or its sender sees no answer."""
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_read or not is_last:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.seconds):
                    while not is_read:
                        await take()
            await send({"type": "http.response.body"})

        await app(scope, take, answer)

    def _problem(self, headers: Headers) -> str | None:
        host, origins = headers.get("host", ""), headers.getlist("origin")
        if self._only_here and not _THIS_MACHINE.fullmatch(host):
            return "the header Host names another machine"
        if any(origin not in (f"http://{host}", f"https://{host}") for origin in origins):
            return "the request comes from another page"
        return None


def _query(request: Request) -> Query:
    parameters = request.query_params
    if unknown := set(parameters) - _PARAMETERS:
        raise HTTPException(400, f"{min(unknown)!r} is not one of {', '.join(sorted(_PARAMETERS))}")
    words = [word.strip() for text in parameters.getlist("labels") for word in text.split(",")]
    words = list(dict.fromkeys(filter(None, words)))
    if len(words) > MAX_WORDS or any(len(word) > MAX_LETTERS for word in words):
        raise HTTPException(400, f"labels: at most {MAX_WORDS} of {MAX_LETTERS} letters")
    boxes, caption = _switch(parameters, "boxes"), _switch(parameters, "caption")
    threshold, top = _number(parameters, "threshold"), _number(parameters, "top")
    if threshold is not None and not 0 <= threshold <= 1:
        raise HTTPException(400, "threshold: not a number from 0 to 1")
    if top is not None and (top < 1 or top % 1):
        raise HTTPException(400, "top: not a whole number from 1")
    variant = Variant(tuple(words), boxes, caption)
    return Query(variant, threshold, None if top is None else int(top))


def _switch(parameters: QueryParams, name: str) -> bool:
    try:
        return _YES_NO[parameters.get(name, "0").lower()]
    except KeyError as error:
        raise HTTPException(400, f"{name}: neither 1 nor 0") from error


def _number(parameters: QueryParams, name: str) -> float | None:
    try:
        return float(parameters[name]) if name in parameters else None
    except ValueError as error:
        raise HTTPException(400, f"{name}: {parameters[name][:20]!r} is not a number") from error


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/")


def _photos(request: Request, body: bytes) -> list[bytes]:
    """The photos of a request: its body, or each part of a form."""
    photos = [body] if body else []
    if _is_form(request):
        head = Message()
        head["content-type"] = request.headers["content-type"]
        between = b"\r\n--" + str(head.get_boundary("")).encode()
        parts = (b"\r\n" + body).split(between)[1:]
        if len(parts) < 2 or not parts[-1].startswith(b"--"):
            raise HTTPException(400, "the form has no photo in it, or no end")
        if len(parts) > MAX_PHOTOS + 1:
            raise HTTPException(400, f"the form has more than {MAX_PHOTOS} photos")
        photos = [part.partition(b"\r\n\r\n")[2] for part in parts[:-1]]
    if not photos:
        raise HTTPException(400, "no photo: send its bytes as the body of the request")
    return photos


def _answer(result: TagResult, tagger: Tagger, query: Query) -> JsonObject:
    """The record that `ramctl tag` writes, without `image`."""
    record = {key: value for key, value in result.record.items() if key not in _OMITTED}
    scores = result.scores
    if query.threshold is not None or query.variant.words:
        scores = _above(query.threshold or 0.0, tagger.labels.tags, result.dense or [])
    scores = dict(list(scores.items())[: query.top])
    record |= {"tags": list(scores), "scores": scores}
    for name in ("salience", "boxes"):
        if name in record:
            record[name] = {tag: value for tag, value in record[name].items() if tag in scores}
    return record


def _above(threshold: float, tags: list[str], dense: list[float]) -> dict[str, float]:
    """The tags above a threshold by falling score; of labels with one tag the highest."""
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
