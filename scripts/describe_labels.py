#!/usr/bin/env python3
"""Write what labels look like, by a language model, for RAM++'s open-set recognition.

    scripts/describe_labels.py classes.txt -o descriptions.json --model gpt-4o-mini
    scripts/describe_labels.py classes.txt -o descriptions.json --model llama3 --endpoint http://localhost:11434/v1

Any endpoint with OpenAI's chat completions serves; the key, if it needs one, is $OPENAI_API_KEY.
The prompts and the sampling are the RAM++ authors'. The output has the form that they publish: a
list of objects, {label: [description, ...]} each, which `ramctl tag --labels` reads. What
was stopped goes on with the same command: finished labels stand in FILE.done until all are there.
Exit codes: 0 done; 1 the endpoint failed (the labels before are kept); 2 wrong usage.
"""

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from venv_python import use_venv

use_venv()

from ramctl.errors import RamctlError
from ramctl.labels import LabelSystem
from ramctl.records.files import output_lock, sync_file, write_atomic

# Source: the RAM++ authors' generate_tag_des_llm.py, as are 10 answers of 77 tokens at 0.99.
PROMPTS = (
    "Describe concisely what a(n) {} looks like:",
    "How can you identify a(n) {} concisely?",
    "What does a(n) {} look like concisely?",
    "What are the identifying characteristics of a(n) {}:",
    "Please provide a concise description of the visual characteristics of {}:",
)
TEMPERATURE, MAX_TOKENS = 0.99, 77
BUSY = {429, 500, 502, 503, 504, 529}


class EndpointProblem(Exception):
    """The endpoint does not answer, or not in the form of chat completions."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server of chat completions, and the model that it is asked for."""

    url: str
    model: str
    key: str = ""
    tries: int = 6
    timeout: float = 120.0

    def answers(self, prompt: str, n: int) -> list[str]:
        """So many answers to a prompt; EndpointProblem when they cannot be had.

        A server that gives fewer at once, as many do, is asked again.
        """
        found: list[str] = []
        while len(found) < n:
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": MAX_TOKENS,
                "temperature": TEMPERATURE,
                "n": n - len(found),
            }
            reply = self._post(body)
            try:
                given = [choice["message"]["content"].strip() for choice in reply["choices"]]
            except (KeyError, TypeError, AttributeError) as error:
                raise EndpointProblem(f"{self.url}: no chat completion: {error!r}") from error
            if not given:
                raise EndpointProblem(f"{self.url}: an answer without choices")
            found += given
        return found[:n]

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        url, content = f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode()
        for left in range(self.tries, 0, -1):
            try:
                request = urllib.request.Request(url, content, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return json.load(response)
            except urllib.error.HTTPError as error:
                if error.code not in BUSY or left == 1:
                    said = error.read(300).decode("utf-8", "replace").strip()
                    raise EndpointProblem(f"{url}: {error.code} {error.reason}: {said}") from error
                wait = error.headers.get("Retry-After", "")
                time.sleep(float(wait) if wait.isdigit() else 2.0 ** (self.tries - left))
            except ValueError as error:
                raise EndpointProblem(f"{url}: not JSON: {error}") from error
            except OSError as error:
                if left == 1:
                    raise EndpointProblem(f"{url}: {error}") from error
                time.sleep(2.0 ** (self.tries - left))
        raise AssertionError("unreachable")


def described(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The finished labels of an earlier run; a last line that was cut off is none."""
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                yield next(iter(json.loads(line).items()))
            except ValueError:
                return


def describe(labels: list[str], endpoint: Endpoint, n: int, output: Path) -> None:
    """Write the descriptions of all labels; EndpointProblem leaves the finished ones."""
    kept = output.with_name(f"{output.name}.done")
    done = dict(described(kept))
    write_atomic(kept, b"".join(_line({label: texts}) for label, texts in done.items()))
    for number, label in enumerate(labels, 1):
        if label in done:
            continue
        answers = [text for prompt in PROMPTS for text in endpoint.answers(prompt.format(label), n)]
        done[label] = [f"a photo of a {label}.", *answers]
        with kept.open("ab") as file:
            file.write(_line({label: done[label]}))
        sync_file(kept)
        sys.stderr.write(f"describe_labels: {label} ({number} of {len(labels)})\n")
    result = [{label: done[label]} for label in labels]
    write_atomic(output, json.dumps(result, indent=3, ensure_ascii=False).encode() + b"\n")
    kept.unlink()


def _line(value: dict[str, list[str]]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("labels", type=Path, help="a word list, label system or bundle")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", required=True, help="as the endpoint names it")
    usual = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    told = "default: $OPENAI_BASE_URL, else OpenAI"
    parser.add_argument("--endpoint", default=usual, metavar="URL", help=told)
    parser.add_argument("--answers", type=int, default=10, metavar="N", help="to each of 5 prompts")
    options = parser.parse_args(arguments)
    if options.answers < 1:
        parser.error("--answers: at least 1")
    endpoint = Endpoint(options.endpoint, options.model, os.environ.get("OPENAI_API_KEY", ""))
    try:
        labels = list(dict.fromkeys(LabelSystem.read(options.labels).tags))
        with output_lock(options.output):
            describe(labels, endpoint, options.answers, options.output)
    except (EndpointProblem, RamctlError, OSError) as error:
        sys.stderr.write(f"describe_labels: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
