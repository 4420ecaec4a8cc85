"""What several tests use: the small data, a bundle with random weights of the real architecture."""

import io
import json
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ramctl.errors import RecordProblem
from ramctl.metadata.sidecar_merge import merge_tags
from ramctl.photos.finding import PhotoInputs, photo_items
from ramctl.records.record import Item
from tests.command import Done, Ramctl

DATA = Path(__file__).parent / "data"
TAGS = ["horse", "field", "sky", "train", "boy", "tree", "house", "chicken", "stand", "red"]
KINDS = ["object"] * 8 + ["action", "attribute"]


def read_photo_inputs(inputs: PhotoInputs) -> Iterator[Item]:
    """The records of photos, each made when it is asked for."""
    return photo_items(inputs)


def write_tar(path: Path, **members: bytes) -> None:
    """An archive of some files."""
    with tarfile.open(path, "w") as shard:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            shard.addfile(header, io.BytesIO(content))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_folder(folder: Path) -> Iterator[str]:
    """The URL of a folder on a web server of this process."""
    handler = partial(_Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write_tiny_bundle(
    path: Path, *, seed: int = 0, threshold: float = 0.5, changes: Sequence[str] = ()
) -> Path:
    """A bundle of the preset `tiny`: ten labels, graphs, caption tokenizer, text table."""
    import numpy as np
    import torch
    from text_distillation import quantise_table

    from ramctl.checkpoints.bundle import BundleWriter
    from ramctl.checkpoints.load import write_model
    from ramctl.checkpoints.onnx_graph import export_graphs
    from ramctl.model.build_ram import build_ram
    from ramctl.model.caption_tokenizer import CaptionTokenizer, train_tokenizer
    from ramctl.model.preset import load_preset
    from ramctl.records.labels import Label, Labels

    torch.manual_seed(seed)
    preset = load_preset("tiny", changes)
    words = train_tokenizer([f"a {tag} and a {tag}" for tag in TAGS], 200)
    tokenizer = CaptionTokenizer(words, preset.model.captioning)
    size = preset.preprocess.size
    model = build_ram(
        preset.model, image_size=size, n_labels=len(TAGS), vocabulary=words.get_vocab_size()
    )
    width = preset.model.labels.width
    draw = np.random.default_rng(seed)
    table = quantise_table(
        draw.normal(size=(words.get_vocab_size(), width)), np.eye(width), words.to_str()
    )
    model.labels.set_text(torch.from_numpy(table.embed_names(TAGS)))
    labels = [Label(tag, kind) for tag, kind in zip(TAGS, KINDS, strict=True)]
    with BundleWriter(path) as writer:
        Labels(labels).write(writer.path / "labels.jsonl")
        writer.meta = write_model(writer.path, preset, model.eval(), tokenizer)
        writer.meta["thresholds"] = {"threshold": threshold}
        table.save(writer.path / "text")
        export_graphs(model, size, writer.path)
    return path


def changed_bundle(bundle: Path, copy: Path, **meta: Any) -> Path:
    """A copy of a bundle with other tables in its bundle.json, added to those of the same name."""
    shutil.copytree(bundle, copy)
    path = copy / "bundle.json"
    tables = json.loads(path.read_text())
    for name, value in meta.items():
        old = tables.get(name)
        tables[name] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
    path.write_text(json.dumps(tables))
    return copy


def read_rows(path: Path | str) -> list[dict]:
    """What a JSONL file holds."""
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def lines(rows: Iterable[object]) -> bytes:
    """Records as JSONL."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def write_records(path: Path, rows: Iterable[object]) -> Path:
    """A JSONL file of records."""
    path.write_bytes(lines(rows))
    return path


def problem_of(do: Callable, *arguments: Any, **options: Any) -> RecordProblem:
    """The problem of a record that a call ends with."""
    with pytest.raises(RecordProblem) as caught:
        do(*arguments, **options)
    return caught.value


@pytest.fixture(autouse=True)
def one_thread():
    """Where a conftest imports it, torch has one thread."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def command(ramctl: Ramctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process, below `tmp_path`, which must end with the status `code`."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, code: int = 0, **options: Any) -> Done:
        done = ramctl(*words, **options)
        assert done.returncode == code, done.messages
        return done

    return run


def fits(function: Callable, most: int, size: Callable[..., int]) -> Callable:
    """The function on a device whose memory runs out above `most` photos or regions."""
    import torch

    def call(*arguments: Any) -> Any:
        if size(*arguments) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*arguments)

    return call


def gallery_photos(page: Path) -> list[dict]:
    """What the page of a gallery holds of its photos."""
    lines = page.read_text("utf-8").split("\n")  # other ends of lines may be in texts
    return [json.loads(line) for line in lines if line.startswith('{"image":')]


def remove_tags(content: bytes | None) -> bytes | None:
    """A sidecar without machine tags; None when it has none, empty when nothing else is left."""
    return merge_tags(content, (), "")


def gallery_names(page: Path) -> list:
    """The photos of a gallery as they are named."""
    return [photo["image"] for photo in gallery_photos(page)]


def wait_for(condition: Callable[[], object]) -> None:
    """Return when something is true, within two minutes."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def captured(command: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that has ended, and what it printed as text."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def with_caption_threshold(bundle: Path, folder: Path, threshold: float) -> Path:
    """A copy of a bundle in a folder, which gives captions of this log-likelihood and more."""
    return changed_bundle(bundle, folder / f"from {threshold}", thresholds={"caption": threshold})
