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
from collections.abc import Iterator
from pathlib import Path

from venv_python import use_venv

use_venv("openai")

from ramctl.captioning.endpoint import Endpoint
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
OPENAI = "https://api.openai.com/v1"


def answers(endpoint: Endpoint, model: str, prompt: str, n: int) -> list[str]:
    """So many answers to a prompt; a server that gives fewer at once is asked again."""
    found: list[str] = []
    while len(found) < n:
        given = endpoint.answers(
            prompt, model=model, n=n - len(found), temperature=TEMPERATURE, max_tokens=MAX_TOKENS
        )
        found += [answer.text.strip() for answer in given]
    return found[:n]


def described(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The finished labels of an earlier run; a last line that was cut off is none."""
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            try:
                yield next(iter(json.loads(line).items()))
            except ValueError:
                return


def describe(labels: list[str], endpoint: Endpoint, model: str, n: int, output: Path) -> None:
    """Write the descriptions of all labels; a RamctlError leaves the finished ones."""
    kept = output.with_name(f"{output.name}.done")
    done = dict(described(kept))
    write_atomic(kept, b"".join(_line({label: texts}) for label, texts in done.items()))
    for number, label in enumerate(labels, 1):
        if label in done:
            continue
        done[label] = [f"a photo of a {label}."]
        for prompt in PROMPTS:
            done[label] += answers(endpoint, model, prompt.format(label), n)
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
    usual = os.environ.get("OPENAI_BASE_URL", OPENAI)
    told = "default: $OPENAI_BASE_URL, else OpenAI"
    parser.add_argument("--endpoint", default=usual, metavar="URL", help=told)
    parser.add_argument("--answers", type=int, default=10, metavar="N", help="to each of 5 prompts")
    options = parser.parse_args(arguments)
    if options.answers < 1:
        parser.error("--answers: at least 1")
    try:
        endpoint = Endpoint(options.endpoint)
        labels = list(dict.fromkeys(LabelSystem.read(options.labels).tags))
        with output_lock(options.output):
            describe(labels, endpoint, options.model, options.answers, options.output)
    except (RamctlError, OSError) as error:
        sys.stderr.write(f"describe_labels: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
