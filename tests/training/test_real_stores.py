"""Records and archives at real servers: HTTP, and S3 where `moto` and `s3fs` are."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.peers.conftest import own_cache
from tests.training.conftest import write_records
from tests.training.test_remote import photos_in_shards, stop_after
from tests.training.test_train_command import assert_same_weights

__all__ = ["own_cache"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http(tmp_path):
    """A folder, its URL at a server of this process, and what need not be done to put it there."""
    pytest.importorskip("aiohttp")
    folder = tmp_path / "www"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}", lambda: None
        server.shutdown()


@pytest.fixture
def s3(tmp_path, s3_server):
    """A folder, the URL of a bucket, and a function that copies the folder into it."""
    import fsspec

    folder, system = tmp_path / "bucket", fsspec.filesystem("s3")
    folder.mkdir()
    system.mkdir("bucket")
    return folder, "s3://bucket/bucket", partial(system.put, str(folder), "bucket/", recursive=True)


@pytest.fixture
def arguments(tiny_options):
    """Of two epochs of `train` whose records are yet to be named."""
    small = ["--set", "training.batch_size=2", "-j", 1, "--epochs", 2]
    return [*tiny_options[:2], *tiny_options[4:], *small]


@pytest.mark.parametrize("store", ["http", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_store_gives_what_a_folder_gives(command, store, arguments, request):
    folder, url, put = request.getfixturevalue(store)
    write_records(folder / "parsed.jsonl", photos_in_shards(folder))
    put()
    command("train", folder / "parsed.jsonl", "--out", "near", *arguments)
    command("train", f"{url}/parsed.jsonl", "--out", "far", *arguments)
    assert_same_weights(Path("near"), Path("far"))
    tag = partial(command, "tag", "--model", "far/", "-j", 1)
    assert tag(f"{url}/parsed.jsonl").stdout == tag(folder / "parsed.jsonl").stdout
    absent = command("tag", "--model", "far/", f"{url}/absent.jsonl", code=2)
    assert "no such file" in absent.messages


def test_no_secret_of_a_url_is_in_a_work_folder_or_a_bundle(command, http, arguments, tmp_path):
    folder, url, _ = http
    write_records(folder / "parsed.jsonl", photos_in_shards(folder))
    place = url.replace("//", "//ann:hunter2@")

    def given(signature: str) -> list[str]:
        records = f"{place}/parsed.jsonl?sig={signature}"
        return [records, "--val", records, "--root", place]

    run = [*given("s3cr3t"), *arguments, "--out", "x", "--save-every", 1]
    stopped = stop_after(3, command, run)
    alone = command("train", "--out", "x", "--resume", code=2)
    shown = url.replace("//", "//***@")
    assert f"{shown}/parsed.jsonl?***: its secrets are not stored: name it again" in alone.messages
    texts = [stopped.messages, alone.messages]
    texts += [path.read_text("latin-1") for path in tmp_path.glob("x*/**/*") if path.is_file()]
    done = command("train", *given("0th3r"), "--out", "x", "--resume", "-j", 1)
    assert "continuing after step 3" in done.messages
    command("train", *run[:-4], "--out", "whole")
    assert_same_weights(Path("whole"), Path("x"))
    texts.append(done.messages)
    texts += [path.read_text("latin-1") for path in Path("x").rglob("*") if path.is_file()]
    for secret in ("hunter2", "s3cr3t", "0th3r"):
        assert not [text for text in texts if secret in text]
    assert f"{shown}/parsed.jsonl?***" in Path("x/README.md").read_text()
