"""Models behind an OpenAI-compatible endpoint: Ollama, LM Studio, llama.cpp, vLLM, hosted ones."""

import os
import re
from collections import Counter
from ipaddress import ip_address
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from ramctl.captions.answer import Answer
from ramctl.errors import RamctlError, RecordProblem, RunProblem, UsageProblem
from ramctl.records.extras import require
from ramctl.records.record import JsonObject
from ramctl.records.signals import raise_if_stopped

OLLAMA = "http://localhost:11434/v1"
TIMEOUT_S = 300.0  # of one request; a large model on a CPU takes minutes
MAX_RETRIES = 5  # of one request by the client, over 15 s or as `Retry-After` asks
MAX_FAILURES = 5  # of the server in a row, each after the retries
_DOCTOR_S = 5.0  # for the list of models
_BAD_REQUEST = (400, 413, 415, 422)  # HTTP status: the endpoint cannot take this message
_PASSING = (408, 409, 429)  # HTTP status of a failure that passes; also 500 and more
_OPTIONAL = ("max_tokens", "temperature")  # settings that some hosted models refuse


class ServerProblem(RecordProblem):
    """The server has failed on a photo; others will show whether it fails on all."""


class Endpoint:
    """A server of chat completions; threads may share it.

    `url` is by default $OPENAI_BASE_URL, else Ollama's on this machine; the key is $OPENAI_API_KEY.
    RunProblem without the extra `caption`, UsageProblem for another URL than http and https.
    """

    def __init__(self, url: str | None = None, timeout: float = TIMEOUT_S) -> None:
        require("caption", "asking a vision-language model")
        import openai

        url = (url or os.environ.get("OPENAI_BASE_URL") or OLLAMA).rstrip("/")
        # For messages: without a name and password, and what may hold a key.
        self.url = re.sub("//[^/]*@", "//", re.split("[?#]", url)[0])
        self.host = urlsplit(url).hostname or ""
        if not (self.host and url.startswith(("http://", "https://"))):
            raise UsageProblem(f"{self.url}: not a URL such as {OLLAMA}")
        self.tokens = Counter({"tokens in": 0, "tokens out": 0})
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        self._lock, self._n_failures, self._has_answered = Lock(), 0, False
        self._refused_settings: frozenset[str] = frozenset()
        # The last four: what is no chat completion.
        self._failures = (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError)
        # No proxy sees what stays on this machine, and no redirect takes a photo elsewhere.
        http = openai.DefaultHttpxClient(trust_env=not self.is_local, follow_redirects=False)
        self._client: Any = openai.OpenAI(
            base_url=url, api_key=self._key or "none", timeout=timeout, max_retries=MAX_RETRIES,
            http_client=http,
        )  # fmt: skip

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def answer(self, content: list[JsonObject], **settings: Any) -> Answer:
        """The answer to a message; `settings` (model, ...) are those of a chat completion.

        RecordProblem where there is none; RunProblem for a wrong key or model, an endpoint that
        cannot be reached at first, and MAX_FAILURES of the server in a row.
        """
        raise_if_stopped()
        try:
            completion = self._completion(content, settings)
            answer, usage = Answer.of(completion), completion.usage
        except self._failures as error:
            raise self._problem(error) from None
        with self._lock:
            self._n_failures, self._has_answered = 0, True
            self.tokens["tokens in"] += getattr(usage, "prompt_tokens", None) or 0
            self.tokens["tokens out"] += getattr(usage, "completion_tokens", None) or 0
        return answer

    def _completion(self, content: list[JsonObject], settings: JsonObject) -> Any:
        messages = [{"role": "user", "content": content}]
        while True:
            sent = {name: v for name, v in settings.items() if name not in self._refused_settings}
            if "max_tokens" in self._refused_settings:
                sent["max_completion_tokens"] = settings["max_tokens"]
            try:
                return self._client.chat.completions.create(messages=messages, **sent)
            except self._failures as error:
                setting = getattr(error, "param", None)
                if setting not in _OPTIONAL or setting not in sent:
                    raise
                self._refused_settings |= {setting}

    def _problem(self, error: Exception) -> RamctlError:
        """The problem behind a failed request: of the photo, or of the run."""
        status = getattr(error, "status_code", None)
        message = f"{self.url}: {self._reason(error)}"
        is_filtered = getattr(error, "code", None) == "content_filter"
        if status in _BAD_REQUEST:
            return RecordProblem(message, code="refused" if is_filtered else "no_caption")
        if status is not None and status < 500 and status not in _PASSING:
            return RunProblem(message)
        with self._lock:
            self._n_failures += 1
            is_unreached = status is None and not self._has_answered
            lasts = is_unreached or self._n_failures >= MAX_FAILURES
        return RunProblem(message) if lasts else ServerProblem(message, code="no_caption")

    def _reason(self, error: Exception) -> str:
        """An error in a few words, without the key, which a server may repeat."""
        status = getattr(error, "status_code", None)
        body = getattr(error, "body", None)
        text = str(
            body.get("message", body) if isinstance(body, dict) else error.__cause__ or error
        )
        if status is not None:
            text = f"{status} {text}" + ("; does the URL end in /v1?" if status == 404 else "")
        text = " ".join(text.split())[:300]
        return text.replace(self._key, "***") if self._key else text

    def models(self) -> list[str]:
        """The endpoint's models."""
        client = self._client.with_options(timeout=_DOCTOR_S, max_retries=0)
        try:
            return [model.id for model in client.models.list().data]
        except self._failures as error:
            raise RunProblem(f"{self.url}: {self._reason(error)}") from None
