"""A small training set: the repository's eight photos, with tags and captions."""

import signal
from pathlib import Path

import pytest

from tests.command import Ramctl
from tests.support import DATA, command, read_rows, write_records

__all__ = ["DATA", "command", "read_rows", "write_records"]


def steps_of(path: Path | str) -> list[dict]:
    """The steps that `--events` tells of."""
    return [event for event in read_rows(path) if event["event"] == "step"]


def settings(*changes: str) -> list[str]:
    """The options that change a preset so."""
    return [part for change in changes for part in ("--set", change)]


def training_records() -> list[dict]:
    """The eight photos: tags from the truth, captions with those tags that they name."""
    tags = {row["image"]: row["tags"] for row in read_rows(DATA / "truth.jsonl")}
    records = []
    for row in read_rows(DATA / "captions.jsonl"):
        given = tags[row["image"]]
        own = [[tag for tag in given if tag in text.lower()] for text in row["captions"]]
        kinds = {tag: "scene" if tag in ("field", "sky") else "object" for tag in given}
        record = {"image": row["image"], "captions": row["captions"], "tags": given}
        records.append({**record, "caption_tags": own, "kinds": kinds})
    return records


SMALL_SWIN = DATA / "small_swin.toml"


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight records as a file; photos are relative to tests/data."""
    return write_records(tmp_path_factory.mktemp("records") / "parsed.jsonl", training_records())


@pytest.fixture
def tiny_options(tiny_bundle) -> list[object]:
    """Options with which `train` learns the preset `tiny` from the repository's photos."""
    text = tiny_bundle / "text"
    return ["--preset", "tiny", "--root", DATA, "--text", text]


@pytest.fixture
def small_swin() -> Path:
    """A preset file: RAM with a Swin of a few thousand weights, photos of 64 px."""
    return SMALL_SWIN


@pytest.fixture
def swin_options(tiny_options, small_swin) -> list[object]:
    """Options with which `train` learns it from the repository's photos."""
    return ["--preset", small_swin, *tiny_options[2:]]


@pytest.fixture
def train(command, tiny_options):
    """Runs `ramctl train` with the preset `tiny` on the repository's photos."""
    return lambda *arguments, **options: command("train", *arguments, *tiny_options, **options)


STOP = """
import signal
from ramctl.training.trainer import Trainer
step = Trainer.take_step
def signalled(*arguments):
    signal.raise_signal(signal.SIGTERM)
    return step(*arguments)
Trainer.take_step = signalled
"""


@pytest.fixture
def stopped(tiny_options, tmp_path):
    """Runs `ramctl train`, which a signal stops after the first step; its messages."""

    def run(*arguments: object, stdin: bytes = b"") -> str:
        words = ["train", *arguments, *tiny_options]
        done = Ramctl(tmp_path).process(*words, before=STOP, stdin=stdin)
        assert done.returncode == -signal.SIGTERM, done.messages
        return done.messages

    return run
