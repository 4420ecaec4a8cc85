"""Models behind an OpenAI-compatible endpoint: Ollama, LM Studio, llama.cpp, vLLM, hosted ones."""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from threading import Lock
from typing import Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.records.extras import require
from ramctl.records.record import JsonObject
from ramctl.records.signals import raise_if_stopped

OLLAMA = "http://localhost:11434/v1"
TIMEOUT_S = 300.0  # of one request; a large model on a CPU takes minutes
PATIENCE_S = 300.0  # of an outage or a rate limit, before the run ends
PAUSE_S = 5.0  # the longest between two requests of a message
SLICE_S = 0.5  # of a pause, until a signal is noticed
N_TRIES = 5  # of a message that may itself be the reason, or of an endpoint that nobody has reached
_DOCTOR_S = 5.0  # for the list of models
_BAD_REQUEST = (400, 413, 415, 422)  # HTTP status: the endpoint cannot take this message
_RATE_LIMIT = 429
_PASSING = (None, 408, 409, _RATE_LIMIT)  # HTTP status of an outage; also 500 and more
_OPTIONAL = ("max_tokens", "temperature")  # settings that some hosted models refuse
_COUNTED = {"tokens_in": "prompt_tokens", "tokens_out": "completion_tokens"}

Content = str | list[JsonObject]


class Answer(NamedTuple):
    """A model's answer as it came."""

    text: str
    is_cut: bool = False  # at the maximum number of tokens
    is_refused: bool = False


class Endpoint:
    """A server of chat completions; threads may share it.

    `url` is by default $OPENAI_BASE_URL, else Ollama's on this machine; the key is $OPENAI_API_KEY.
    RunProblem without the extra `caption`, UsageProblem for another URL than http and https.
    """

    def __init__(
        self, url: str | None = None, timeout: float = TIMEOUT_S,
        notify: Callable[[str], None] = lambda message: None,
    ) -> None:  # fmt: skip
        require("caption", "asking a vision-language model")
        import openai

        self._openai: Any = openai
        self._failures = (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError)
        url = (url or os.environ.get("OPENAI_BASE_URL") or OLLAMA).rstrip("/")
        # For messages: without a name and password, and what may hold a key.
        self.url = re.sub("//[^/]*@", "//", re.split("[?#]", url)[0])
        self.host = _host_of(url)
        if not self.host:
            raise UsageProblem(f"{self.url}: not a URL such as {OLLAMA}")
        self.tokens = {"tokens_in": 0, "tokens_out": 0}
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not re.fullmatch("[!-~]*", self._key):
            raise UsageProblem("OPENAI_API_KEY: a key has no blanks, and ASCII characters only")
        self._notify, self._timeout, self._lock = notify, timeout, Lock()
        self._refused_settings: frozenset[str] = frozenset()
        self.answered_at = 0.0  # by time.monotonic()
        self._is_down = False
        self._failure: RunProblem | None = None  # ends the waiting of other threads too
        self._failed_at = 0.0
        # No proxy sees what stays on this machine, and no redirect takes a photo elsewhere.
        http = openai.DefaultHttpxClient(trust_env=not self.is_local, follow_redirects=False)
        self._client = openai.OpenAI(
            base_url=url, api_key=self._key or "none", timeout=timeout, max_retries=0,
            http_client=http,
        )  # fmt: skip

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def answers(
        self, content: Content, usual: Content | None = None, **settings: Any
    ) -> list[Answer]:
        """The answers to a message; `settings` (model, n, ...) are those of a chat completion.

        Waits out outages and rate limits for PATIENCE_S, then RunProblem, as for a wrong key or
        model. RecordProblem where the endpoint fails on this message alone: others pass meanwhile,
        or the `usual` message does, which is sent to find out.
        """
        begun, n_failed, has_passed = time.monotonic(), 0, False
        while True:
            raise_if_stopped()
            asked_at = time.monotonic()
            if self._failure and (self._failed_at > begun or asked_at < self._failed_at + PAUSE_S):
                raise self._failure
            try:
                return self._ask(content, settings)
            except self._failures as error:
                n_failed += 1
                self._raise_lasting(error, usual, settings)
                is_stall = isinstance(error, self._openai.APITimeoutError)
                may_be_alone = getattr(error, "status_code", None) != _RATE_LIMIT
                if may_be_alone and (is_stall or n_failed >= N_TRIES):
                    others_pass = self.answered_at > asked_at or self._passes(usual, settings)
                    if others_pass and has_passed:
                        problem = f"{self.url}: {self._reason(error)} (other photos pass)"
                        raise RecordProblem(problem, code="no_caption") from None
                    has_passed = others_pass
                    if others_pass:  # once more: the endpoint may just have come back
                        continue
                self._end_if_lasting(error, begun, n_failed)
                _wait(_pause(error, n_failed))

    def _ask(self, content: Content, settings: JsonObject) -> list[Answer]:
        request: JsonObject = {"messages": [{"role": "user", "content": content}], **settings}
        while True:
            sent = {name: v for name, v in request.items() if name not in self._refused_settings}
            if "max_tokens" in request.keys() - sent.keys():
                sent["max_completion_tokens"] = request["max_tokens"]
            try:
                completion = self._completion(sent)
                break
            except self._failures as error:
                setting = getattr(error, "param", None)
                if setting not in _OPTIONAL or setting not in sent:
                    raise
                self._refused_settings |= {setting}
        found = []
        for choice in completion["choices"]:
            message, end = choice["message"], choice.get("finish_reason")
            refusal = message.get("refusal")
            text = _text_of(message.get("content")) or refusal or ""
            found.append(Answer(text, end == "length", bool(refusal) or end == "content_filter"))
        usage = completion.get("usage") or {}
        with self._lock:
            for name, counted in _COUNTED.items():
                self.tokens[name] += usage.get(counted) or 0
        self.answered_at, self._is_down = time.monotonic(), False
        return found

    def _completion(self, request: JsonObject) -> JsonObject:
        """The endpoint's answer; a server that sends a byte now and then is not waited for."""
        end, body = time.monotonic() + self._timeout, bytearray()
        create = self._client.chat.completions.with_streaming_response.create
        with create(**request) as response:
            try:
                for block in response.iter_bytes():
                    body += block
                    if time.monotonic() > end:
                        raise self._openai.APITimeoutError(request=response.http_request)
            except self._failures:
                raise
            except Exception as error:  # of the client's HTTP library, whichever it is
                is_late = "Timeout" in type(error).__name__
                lost = self._openai.APITimeoutError if is_late else self._openai.APIConnectionError
                raise lost(request=response.http_request) from error
        with suppress(ValueError):
            completion = json.loads(body)  # it takes half a surrogate pair too
            if isinstance(completion, dict) and completion.get("choices"):
                return completion
        raise ValueError(f"not a chat completion: {body.decode(errors='replace')}")

    def _passes(self, content: Content | None, settings: JsonObject) -> bool:
        if content is None:
            return False
        with suppress(*self._failures):
            return bool(self._ask(content, settings))
        return False

    def _raise_lasting(self, error: Exception, usual: Content | None, settings: JsonObject) -> None:
        """Raise the problem behind an error that does not pass."""
        status = getattr(error, "status_code", None)
        problem = f"{self.url}: {self._reason(error)}"
        if status in _BAD_REQUEST:
            # Of an endpoint that takes no message of this kind it is not the photo's fault.
            if usual and not self.answered_at and not self._passes(usual, settings):
                raise RunProblem(problem) from None
            is_filtered = getattr(error, "code", None) == "content_filter"
            raise RecordProblem(problem, code="refused" if is_filtered else "no_caption") from None
        if status not in _PASSING and status < 500:
            self._fail(problem)

    def _end_if_lasting(self, error: Exception, begun: float, n_failed: int) -> None:
        """Raise RunProblem for an outage that has lasted too long."""
        problem = f"{self.url}: {self._reason(error)}"
        is_unreached = getattr(error, "status_code", None) is None and not self.answered_at
        is_other = not isinstance(error, self._openai.OpenAIError)  # a page, not an endpoint
        if is_unreached and (is_other or n_failed >= N_TRIES):
            self._fail(problem)
        if time.monotonic() > begun + PATIENCE_S:
            self._fail(problem)
        if not self._is_down and not is_unreached and self.answered_at < begun:
            self._is_down = True
            self._notify(f"{problem}; trying for up to {PATIENCE_S:.0f} s")

    def _fail(self, problem: str) -> NoReturn:
        self._failure, self._failed_at = RunProblem(problem), time.monotonic()
        raise self._failure from None

    def _reason(self, error: Exception) -> str:
        """An error in a few words, without the key, which a server may repeat."""
        text = str(error.__cause__ or error)
        if isinstance(error, self._openai.APITimeoutError):
            text = f"no answer in {self._timeout:g} s"
        elif (status := getattr(error, "status_code", None)) is not None:
            body = getattr(error, "body", None) or text
            text = f"{status} {body.get('message', body) if isinstance(body, dict) else body}"
            text += "; does the URL end in /v1?" if status == 404 else ""
        text = " ".join(text.split())[:300]
        return text.replace(self._key, "***") if self._key else text

    def models(self) -> list[str]:
        """The endpoint's models."""
        client: Any = self._client.with_options(timeout=_DOCTOR_S)
        try:
            return [model.id for model in client.models.list().data]
        except self._failures as error:
            raise RunProblem(f"{self.url}: {self._reason(error)}") from None


def _text_of(content: str | list[JsonObject] | None) -> str:
    """The text of an answer, which some endpoints give in parts; half a character is none."""
    parts = [part.get("text") or "" for part in content] if isinstance(content, list) else [content]
    return " ".join(filter(None, parts)).encode("utf-8", "ignore").decode()


def _pause(error: Exception, n_failed: int) -> float:
    """Seconds before the next try: what the endpoint asks for, or twice the last."""
    with suppress(AttributeError, LookupError, ValueError):
        seconds = float(error.response.headers["retry-after"])  # type: ignore[attr-defined]
        if 0 < seconds <= PATIENCE_S:
            return seconds
    return min(PAUSE_S, PAUSE_S / 10 * 2.0 ** (n_failed - 1))


def _wait(seconds: float) -> None:
    """Sleep, but no longer than until the run is stopped."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        raise_if_stopped()
        time.sleep(min(left, SLICE_S))


def _host_of(url: str) -> str:
    """The host of a URL of http or https; empty for anything else."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.port != 0 and not re.search(r"\s", url):
            return parts.hostname or ""
    return ""
