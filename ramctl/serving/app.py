"""The page, `POST /tag` and `GET /search`: photos come as bytes, no request can name a file."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from importlib.resources import files
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.types import Message as Event

from ramctl.decide.selection import DECIMALS
from ramctl.errors import RamctlError, RecordProblem, UsageProblem, attempt
from ramctl.pages import render, thumbnail
from ramctl.photos.limits import PhotoLimits
from ramctl.records.jsonl import dumps
from ramctl.records.record import JsonObject, Record
from ramctl.searching.photo_search import PhotoSearch
from ramctl.serving.loaded_taggers import MAX_PHOTOS, LoadedTaggers, Variant
from ramctl.serving.traffic import Traffic
from ramctl.tagging.tagger import Tagger, TagResult

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODIES = 6  # bytes of all requests together, as a multiple of the limit of one
MAX_WAITING = 256  # photos of all requests that are decoded or tagged; others wait for these
MAX_WORDS = 100
MAX_LETTERS = 100  # of a word
Result = TypeVar("Result")
_THIS_MACHINE = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)
_OMITTED = frozenset({"image", "dense", "labels"})
_YES_NO = {"": True, "1": True, "true": True, "0": False, "false": False}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


Query = dict[str, Any]  # the parameters of a request, by name
_DESCRIPTION = (files("ramctl.serving") / "openapi.json").read_bytes()
PATHS = orjson.loads(_DESCRIPTION)["paths"]
_READ: dict[str, Callable[[str], Any]] = {
    "number": float, "integer": int, "string": str, "boolean": lambda text: _YES_NO[text.lower()],
}  # fmt: skip


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
    model: str, taggers: LoadedTaggers, limits: PhotoLimits, *, only_here: bool,
    traffic: Traffic, origins: Collection[str] = (), search: PhotoSearch | None = None,
) -> Starlette:  # fmt: skip
    """The application; `only_here` refuses requests that name another host than this machine.

    `limits` are those of a photo; its seconds are for sending it, and again for tagging it.
    """
    bodies, slots = Bodies(limits), asyncio.Semaphore(MAX_WAITING)
    searchers = ThreadPoolExecutor(1)

    async def metrics(request: Request) -> Response:
        return PlainTextResponse(traffic.text(), headers=_HEADERS)

    async def tag(request: Request) -> Response:
        query = _query(request)
        query["labels"] = _words(request)
        variant = Variant(**{name: query[name] for name in Variant._fields if name in query})
        if "precision" in query and "threshold" in query:
            raise HTTPException(400, "precision chooses the thresholds: leave out threshold")
        async with bodies.read(request) as body, AsyncExitStack() as stack:
            photos = _photos(request, body)
            opening = stack.enter_async_context(taggers.using(variant))
            shared = await _in_time(opening, limits, "what this needs is still being loaded")

            async def in_turn(photo: bytes) -> TagResult:
                async with slots:
                    return await shared.tag(photo)

            late = f"the photo was not tagged within {limits.seconds:g} seconds"
            each = (_in_time(in_turn(photo), limits, late) for photo in photos)
            results = await asyncio.gather(*each, return_exceptions=True)
        for result in results:
            outcome = "failed" if isinstance(result, BaseException) else "tagged"
            traffic.count("ramctl_photos_total", outcome=outcome)
        if not _is_form(request) and isinstance(results[0], BaseException):
            raise results[0]
        answers = [
            _problem(request, result)[0] if isinstance(result, BaseException)
            else _answer(result, shared.tagger, query) for result in results
        ]  # fmt: skip
        return _json(answers if _is_form(request) else answers[0])

    async def find(request: Request) -> Response:
        if search is None:
            raise HTTPException(501, "no photos to search: start with ramctl serve --index INPUT")
        query, loop = _query(request, words=""), asyncio.get_running_loop()
        finding = loop.run_in_executor(searchers, _search, search, query)
        return _json(await _in_time(finding, limits, "others are searching; try again"))

    page = render("serve.html", model=model, max_bytes=limits.bytes, has_index=search is not None)
    description = Response(_DESCRIPTION, media_type="application/json", headers=_HEADERS)
    app = Starlette(
        routes=[
            Route("/", HTMLResponse(page, headers=_HEADERS), methods=["GET"]),
            Route("/healthz", _json({"status": "ready", "model": model}), methods=["GET"]),
            Route("/openapi.json", description, methods=["GET"]),
            Route("/tag", tag, methods=["POST"]), Route("/search", find),
            Route("/metrics", metrics),
        ],
        middleware=[
            Middleware(_Guard, limits, traffic, only_here, origins),
            Middleware(
                CORSMiddleware, allow_origins=[*origins], allow_methods=["GET", "POST"],
                expose_headers=["Retry-After"],
            ),
        ],
        exception_handlers={
            HTTPException: _on_problem, RamctlError: _on_problem,
            # Its message may name files; it is printed on standard error.
            Exception: lambda *_: _json({"code": "failed", "message": "internal error"}, 500),
        },
    )  # fmt: skip
    app.router.redirect_slashes = False  # behind a proxy, a redirect would name this machine
    return app


async def _in_time(task: Awaitable[Result], limits: PhotoLimits, late: str) -> Result:
    try:
        async with asyncio.timeout(limits.seconds):
            return await task
    except TimeoutError as error:
        raise _busy(late) from error


def _busy(message: str) -> HTTPException:
    return HTTPException(503, message, {"retry-after": "1"})


@dataclass(frozen=True, slots=True)
class _Guard:
    """Refuses what other people's web pages make a browser send.

    Such a page can make its own name lead here (DNS rebinding), but the headers Host and Origin
    then still hold that name.
    """

    app: ASGIApp
    limits: PhotoLimits
    traffic: Traffic
    only_here: bool
    origins: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if problem := self._problem(Headers(scope=scope)):
            app = _json({"code": "forbidden", "message": problem}, 403)
        is_read, status, started = False, 500, time.monotonic()

        async def take() -> Event:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body")
            return message

        async def answer(message: Event) -> None:
            """Send, but end only after the whole request was read, or its sender sees no answer."""
            nonlocal status
            status = message.get("status", status)
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if is_read or not is_last:
                await send(message)
                return
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.seconds):
                    while not is_read:
                        await take()
            await send({"type": "http.response.body"})

        try:
            await app(scope, take, answer)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            await _on_problem(Request(scope), _busy("the server ends"))(scope, receive, send)
            status = 503
        finally:
            seconds = time.monotonic() - started
            # Other paths are counted together: anybody could make more and more of them.
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.traffic.count("ramctl_requests_total", path=path, status=status)
            self.traffic.count("ramctl_request_seconds_total", seconds, path=path, status=status)
            self.traffic.log(scope, status, seconds)

    def _problem(self, headers: Headers) -> str | None:
        host, origins = headers.get("host", ""), headers.getlist("origin")
        if self.only_here and not _THIS_MACHINE.fullmatch(host):
            return "the header Host names another machine"
        if not {f"http://{host}", f"https://{host}", *self.origins}.issuperset(origins):
            return "the request comes from another page"
        return None


def _query(request: Request, **defaults: str) -> Query:
    (method,) = PATHS[request.scope["path"]].values()
    query, schemas = Query(), {part["name"]: part["schema"] for part in method["parameters"]}
    for name, text in {**defaults, **request.query_params}.items():
        if name not in schemas:
            raise HTTPException(400, f"{name!r} is not one of {', '.join(sorted(schemas))}")
        schema = schemas[name]
        try:
            query[name] = value = _READ[schema["type"]](text)
            size = len(value) if isinstance(value, str) else value
            low = schema.get("minimum", schema.get("minLength", size))
            if not low <= size <= schema.get("maximum", schema.get("maxLength", size)):
                raise ValueError
        except (KeyError, ValueError) as error:
            expected = ", ".join(f"{key} {value}" for key, value in schema.items())
            raise HTTPException(400, f"{name}: {text[:20]!r} is not of {expected}") from error
    return query


def _words(request: Request) -> tuple[str, ...]:
    texts = request.query_params.getlist("labels")
    words = [word.strip() for text in texts for word in text.split(",")]
    words = list(dict.fromkeys(filter(None, words)))
    if len(words) > MAX_WORDS or any(len(word) > MAX_LETTERS for word in words):
        raise HTTPException(400, f"labels: at most {MAX_WORDS} of {MAX_LETTERS} letters")
    return tuple(words)


def _search(search: PhotoSearch, query: Query) -> JsonObject:
    """The photos that fit words best, and notes on words that no label is named by."""
    top, language, notes = query.get("top", 20), query.get("lang", ""), list[str]()
    found = search.words(query["words"], top, language=language, notify=notes.append)
    try:
        rows = search.rows(found)
    except RamctlError as problem:  # the index is not what it was at the start
        raise HTTPException(503, problem.message) from problem
    for row in rows if query.get("thumbnails") else ():
        small = attempt(thumbnail, Record(row, base=search.base), 240, 75)
        row["thumbnail"] = None if isinstance(small, RecordProblem) else small.source
    return {"photos": rows, "notes": notes}


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
    if body[:99].lstrip()[:1] in (b"{", b"[", b'"'):
        message = "JSON where a photo is expected: send the file (curl --data-binary @photo.jpg)"
        raise HTTPException(400, message)
    return photos


def _answer(result: TagResult, tagger: Tagger, query: Query) -> JsonObject:
    """The record that `ramctl tag` writes, without `image`."""
    record = {key: value for key, value in result.record.items() if key not in _OMITTED}
    scores = result.scores
    if "threshold" in query or (query["labels"] and "precision" not in query):
        scores = _above(query.get("threshold", 0.0), tagger.labels.tags, result.dense or [])
    # As `tag --lang`: of tags that share a name, the first.
    labels, code = tagger.labels, tagger.labels.language_code(query.get("lang"))
    names = {tag: labels[labels.ids(tag)[0]].names.get(code) or tag for tag in scores}
    firsts = {name: tag for tag, name in reversed(names.items())}
    tags = [tag for tag in scores if firsts[names[tag]] == tag][: query.get("top")]
    record |= {"tags": [names[tag] for tag in tags], "scores": scores}
    record |= {"tag_language": code} if code else {}
    for name in {"scores", "salience", "boxes"} & record.keys():
        values = record[name]
        record[name] = {names[tag]: values[tag] for tag in tags if tag in values}
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
        message = problem.message.replace("--", "")  # parameters have the names of options
        return {"code": "usage", "message": message}, 400
    else:
        code, status = "failed", 400 if "labels" in request.query_params else 501
    return {"code": code, "message": problem.message}, status


def _on_problem(request: Request, problem: Exception) -> Response:
    answer = _json(*_problem(request, problem))
    answer.headers.update(getattr(problem, "headers", None) or {})
    return answer
