"""What a URL holds of user, password and token is in no message, reject or count."""

import click
import pytest

from ramctl.commands import COMMANDS
from ramctl.commands.command import RamctlCommand

#: Nobody answers there.
URLS = [
    f"{place}{name}?token=s3cr3t"
    for place in ("https://ann:hunter2@127.0.0.1:9/folder/", "s3://ann:hunter2@bucket/")
    for name in ("x", "x.jsonl")
]
#: A command line that comes to each of the options.
LINES = {
    "caption": ["in.jsonl", "--model", "m"],
    "parse": ["in.jsonl"],
    "train": ["in.jsonl", "--preset", "tiny"],
    "generate": ["in.jsonl"],
    "clean": ["in.jsonl"],
    "finetune": ["in.jsonl"],
    "tag": ["in.jsonl"],
    "search": ["in.jsonl", "a", "dog"],
    "export": ["in.jsonl", "-f", "jsonl"],
    "import": ["in.jsonl"],
    "serve": [],
    "eval": ["in.jsonl", "--truth", "in.jsonl"],
    "convert": ["model", "--arch", "ram", "--out", "new"],
    "doctor": [],
}
#: What stands before a name, besides nothing.
BEFORE = {
    "model": ["clip:"], "labels": ["+"], "detector": ["grounding-dino:"], "name": ["x="],
    "distill": ["clip:", "scores:"], "set": ["training.start="],
}  # fmt: skip
NAMES = ("FILE", "DIR", "URL", "BUNDLE", "PHOTO", "TEACHER", "WEIGHTS", "VALUE", "NAME", "ADDRESS")
RECORDS = '{"image":"a.jpg","captions":["a dog"],"tags":["dog"],"scores":{"dog":0.9}}\n{oops\n'
CASES = [
    (command, one)
    for command in COMMANDS
    for one in RamctlCommand(command).params
    if isinstance(one, click.Argument) or any(word in (one.metavar or "") for word in NAMES)
]


@pytest.mark.parametrize(("command", "one"), CASES, ids=lambda case: getattr(case, "name", case))
def test_no_secret_of_a_name_is_told(command, one, tmp_path, ramctl, monkeypatch):
    monkeypatch.setattr("ramctl.records.remote.WAITS_S", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    also = [f"--{name}={name}" for name in ("rejects", "stats") if name != one.name]
    also = also if {"rejects", "stats"} <= {o.name for o in RamctlCommand(command).params} else []
    (tmp_path / "in.jsonl").write_text(RECORDS)
    for url in (before + url for before in ["", *BEFORE.get(one.name, [])] for url in URLS):
        if isinstance(one, click.Argument):
            words = [url, *LINES[command][1:], *also]
        else:
            words = [*LINES[command], *also, one.opts[-1], url]
        done = ramctl(command, *words)
        files = [path.read_text() for path in tmp_path.iterdir() if path.is_file()]
        for text in (done.messages, done.stdout.decode(), *files):
            assert "hunter2" not in text and "s3cr3t" not in text, text


@pytest.mark.parametrize(
    "words", [["search", "s3://b/x", "dog"], ["eval", "x", "--truth", "x", "--map", "s3://b/x"]]
)
def test_a_url_in_the_place_of_a_path_is_shown_as_it_was_written(words, tmp_path, ramctl):
    (tmp_path / "x").touch()
    assert ": s3://b/x: " in ramctl(*words).messages
