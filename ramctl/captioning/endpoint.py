"""Models behind an OpenAI-compatible endpoint: Ollama, LM Studio, llama.cpp, vLLM, hosted ones."""

import os
import re
import time
from contextlib import suppress
from ipaddress import ip_address
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from ramctl.errors import HIDDEN, RecordProblem, RunProblem, UsageProblem, without_secrets
from ramctl.parts import require
from ramctl.records.files import Notify
from ramctl.records.record import JsonObject
from ramctl.records.signals import raise_if_stopped

OLLAMA = "http://localhost:11434/v1"
TIMEOUT_S = 300.0  # of one request; a large model on a CPU takes minutes
PATIENCE_S = 300.0  # of an outage or a rate limit, before the run ends
PAUSE_S = 5.0  # between rounds of the client's own retries
N_RETRIES = 4  # of a round
_DOCTOR_S = 5.0  # for the list of models
_BAD_REQUEST = (400, 413, 415, 422)  # HTTP status: the endpoint cannot take this message
_PASSING = (None, 408, 409, 429)  # HTTP status of an outage; also 500 and more
_OPTIONAL = ("max_tokens", "temperature")  # settings that some hosted models refuse


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
        notify: Notify = lambda message: None,
    ) -> None:  # fmt: skip
        require("caption", "asking a vision-language model")
        import openai

        self._openai: Any = openai
        self._failures = (openai.OpenAIError, ValueError, LookupError, TypeError, AttributeError)
        url = (url or os.environ.get("OPENAI_BASE_URL") or OLLAMA).rstrip("/")
        self.url = without_secrets(url)  # for messages
        self.host = _host_of(url)
        if not self.host:
            raise UsageProblem(f"endpoint {self.url}: not a URL such as {OLLAMA}")
        self.tokens = {"tokens_in": 0, "tokens_out": 0}
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not re.fullmatch("[!-~]*", self._key):
            raise UsageProblem("OPENAI_API_KEY: a key has no blanks, and ASCII characters only")
        self._notify, self._timeout, self._lock = notify, timeout, Lock()
        self._refused_settings: frozenset[str] = frozenset()
        self.answered_at = 0.0  # by time.monotonic()
        self._is_down = False
        self._failure: RunProblem | None = None  # ends the waiting of other threads too
        # No proxy sees what stays on this machine, and no redirect takes a photo elsewhere.
        http = openai.DefaultHttpxClient(trust_env=not self.is_local, follow_redirects=False)
        self._client = openai.OpenAI(
            base_url=url, api_key=self._key or "none", timeout=timeout, max_retries=N_RETRIES,
            http_client=http,
        )  # fmt: skip

    @property
    def is_local(self) -> bool:
        """Whether the endpoint is on this machine."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def answers(self, content: str | list[JsonObject], **settings: Any) -> list[Answer]:
        """The answers to a message; `settings` (model, n, ...) are those of a chat completion.

        Waits out outages and rate limits for PATIENCE_S, then RunProblem, as for a wrong key or
        model. RecordProblem where the endpoint fails on this message alone.
        """
        request = {"messages": [{"role": "user", "content": content}], **settings}
        begun = time.monotonic()
        while True:
            raise_if_stopped()
            if self._failure:
                raise self._failure
            sent = {name: v for name, v in request.items() if name not in self._refused_settings}
            if "max_tokens" in request.keys() - sent.keys():
                sent["max_completion_tokens"] = request["max_tokens"]
            try:
                return self._ask(sent)
            except self._failures as error:
                setting = getattr(error, "param", None)
                if setting in _OPTIONAL and setting in sent:
                    self._refused_settings |= {setting}
                    continue
                self._raise_lasting(error, begun)
            time.sleep(PAUSE_S)

    def _ask(self, request: JsonObject) -> list[Answer]:
        completion = self._client.chat.completions.create(**request)
        if not getattr(completion, "choices", None):
            shown = getattr(completion, "to_json", lambda: completion)()
            raise ValueError(f"not a chat completion: {shown}")
        found = []
        for choice in completion.choices:
            refusal, end = getattr(choice.message, "refusal", None), choice.finish_reason
            text = choice.message.content or refusal or ""
            found.append(Answer(text, end == "length", bool(refusal) or end == "content_filter"))
        if usage := completion.usage:
            with self._lock:
                self.tokens["tokens_in"] += usage.prompt_tokens or 0
                self.tokens["tokens_out"] += usage.completion_tokens or 0
        self.answered_at, self._is_down = time.monotonic(), False
        return found

    def _raise_lasting(self, error: Exception, begun: float) -> None:
        """Raise the problem behind an error that does not pass, or has lasted too long."""
        status = getattr(error, "status_code", None)
        problem = f"{self.url}: {self._reason(error)}"
        if status in _BAD_REQUEST:
            is_filtered = getattr(error, "code", None) == "content_filter"
            raise RecordProblem(problem, code="refused" if is_filtered else "no_caption") from None
        is_unreached = status is None and not self.answered_at
        is_passing = status in _PASSING or status >= 500
        if is_passing and not is_unreached and time.monotonic() < begun + PATIENCE_S:
            if not self._is_down and self.answered_at < begun:  # others do not pass either
                self._is_down = True
                self._notify(f"{problem}; trying for up to {PATIENCE_S:.0f} s")
            return
        is_crash = status == 500 or isinstance(error, self._openai.APITimeoutError)
        # No outage, if others passed long after this one had failed.
        if is_crash and self.answered_at > begun + max(PATIENCE_S / 2, self._timeout):
            raise RecordProblem(f"{problem} (other photos pass)", code="no_caption") from None
        self._failure = RunProblem(problem)
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
        return text.replace(self._key, HIDDEN) if self._key else text

    def models(self) -> dict[str, bool | None]:
        """Each model of the endpoint, and whether it sees photos; None where that is not known."""
        client: Any = self._client.with_options(max_retries=0, timeout=_DOCTOR_S)
        found: dict[str, bool | None] = {}
        try:
            for facts in [model.to_dict() for model in client.models.list().data]:
                modalities = (facts.get("architecture") or {}).get("input_modalities")
                found[facts["id"]] = "image" in modalities if modalities else None  # OpenRouter's
        except self._failures as error:
            raise RunProblem(f"{self.url}: {self._reason(error)}") from None
        place = urljoin(str(client.base_url), "/api/show")
        with suppress(*self._failures):  # it is not Ollama
            for name in [name for name, sees in found.items() if sees is None]:
                shown = client.post(place, body={"model": name}, cast_to=object)
                found[name] = "vision" in shown["capabilities"]
        return found


def _host_of(url: str) -> str:
    """The host of a URL of http or https; empty for anything else."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.port != 0 and not re.search(r"\s", url):
            return parts.hostname or ""
    return ""
