"""A small training set: the repository's eight photos, with tags and captions."""

from pathlib import Path

import pytest

from tests.inference.peers.support import clip_tokenizer, own_cache, save_clip
from tests.support import DATA, command, read_rows, write_records

__all__ = ["DATA", "clip_tokenizer", "command", "own_cache", "read_rows", "write_records"]

SMALL_SWIN = DATA / "small_swin.toml"


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


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The eight records as a file; photos are relative to tests/data."""
    return write_records(tmp_path_factory.mktemp("records") / "parsed.jsonl", training_records())


@pytest.fixture(scope="session")
def tiny_options(tiny_bundle) -> list[object]:
    """Options with which `train` learns the preset `tiny` from the repository's photos."""
    return ["--preset", "tiny", "--root", DATA, "--text", tiny_bundle / "text"]


@pytest.fixture(scope="session")
def swin_options(tiny_options) -> list[object]:
    """Options with which it learns RAM with a Swin of a few thousand weights."""
    return ["--preset", SMALL_SWIN, *tiny_options[2:]]


@pytest.fixture
def train(command, tiny_options):
    """Runs `ramctl train` with the preset `tiny` on the repository's photos."""
    return lambda *arguments, **options: command("train", *arguments, *tiny_options, **options)


@pytest.fixture(scope="session")
def clip(tmp_path_factory, clip_tokenizer) -> Path:
    """A CLIP with random weights, as wide as the labels of `tiny`."""
    return save_clip(tmp_path_factory.mktemp("clip"), clip_tokenizer, width=32)
