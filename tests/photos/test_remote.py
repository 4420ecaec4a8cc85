"""Records and photos at URLs: what is read, what is kept, and what a record cannot reach."""

import gzip
import io
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem, UsageProblem
from ramctl.photos import shard_cache
from ramctl.photos.decoding import read_photo
from ramctl.records.inputs import open_input, read_inputs, require_files
from ramctl.records.remote import base_url, photo_base, url_below
from tests.remote_store import CountedFileSystem, write_tar
from tests.support import problem_of

BASE = photo_base("-", "counted://bucket")


def code_of(name: str, base=BASE, **options) -> str:
    """The code of the problem that reading a photo has."""
    return problem_of(read_photo, name, base, **options).code


def cached(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "ramctl" / "shards").glob("*.tar"))


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("https://host:8080/photos", "https://host:8080/photos"),
        ("file:///tmp/x", "file:///tmp/x"),
        ("memory://", "memory://"),
    ],
)
def test_a_base_is_the_url_that_it_was(url, base):
    assert base_url(photo_base("-", url)) == base
    slash = "" if base.endswith("/") else "/"
    assert base_url(photo_base(f"{base}{slash}records.jsonl")) == base


def test_folders_are_no_urls():
    for name in ("photos", "/photos", "c:/photos", "a:b/c", "."):
        assert base_url(photo_base("-", name)) is None
    assert base_url(photo_base("-", "s3:/bucket")) is None  # a folder of that name
    assert photo_base("-") == Path()
    assert photo_base("there/records.jsonl") == Path("there")


@pytest.mark.parametrize("name", ["1.jpg", "a/1.jpg", "s3://bucket/x/1.jpg", "a..b/%41.jpg"])
def test_photos_lie_below_the_base(name):
    inside = name.removeprefix("s3://bucket/x/")
    assert url_below(photo_base("-", "s3://bucket/x"), name) == f"s3://bucket/x/{inside}"


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd", "../y/1.jpg", "a/../../y", "a/%2e%2E/b", "..\\y", "file:///etc/passwd",
        "https://10.0.0.1/", "s3://bucket/xy/1.jpg", "s3://other/x/1.jpg", "1::file:///etc/passwd",
        "s3://bucket/x/", "s3://bucket/x//etc", "s3://bucket/x/../y",
    ],
)  # fmt: skip
def test_no_record_has_anything_read_from_elsewhere(name):
    with pytest.raises(RecordProblem, match="not below s3://bucket/x") as caught:
        url_below(photo_base("-", "s3://bucket/x"), name)
    assert caught.value.code == "missing_image"


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "a" * 1001, "\udce9.jpg", "a" * 300, "", "a/"])
def test_a_name_that_no_file_has_is_a_reject(name, tmp_path):
    (tmp_path / "a").mkdir()
    assert code_of(name, photo_base("-", f"file://{tmp_path}")) == "missing_image"


@pytest.mark.parametrize("name", ["counted://bucket/a.jpg", "counted://bucket/shard.tar#a.jpg"])
def test_where_the_base_is_a_folder_a_url_is_the_name_of_no_file(name, store):
    (store.bucket / "a.jpg").write_bytes(b"1")
    write_tar(store.bucket / "shard.tar", **{"a.jpg": b"1"})
    assert code_of(name, Path()) == "missing_image" and not store.opened()


@pytest.mark.parametrize("packed", [False, True])
def test_records_at_a_url_are_those_of_the_file(store, packed):
    content = b'{"image":"1.jpg"}\n{oops\n{"image":"2.jpg"}\n'
    name = "records.jsonl.gz" if packed else "records.jsonl"
    (store.bucket / name).write_bytes(gzip.compress(content) if packed else content)
    url = f"counted://bucket/{name}"
    require_files([url])
    found = list(read_inputs([url], None, "parse"))
    assert [item.line for item in found] == [1, 2, 3]
    assert found[0].base == BASE and found[1].code == "bad_json"


def test_a_record_file_that_is_not_there_is_named(store):
    for read in (require_files, lambda names: list(read_inputs(names, None, "parse"))):
        with pytest.raises(UsageProblem, match=r"^counted://bucket/no.jsonl: no such file$"):
            read(["counted://bucket/no.jsonl"])


def test_a_kind_of_url_that_nothing_reads_is_named(store):
    with pytest.raises(RunProblem, match=r"nonsense://x/y.jsonl: .*nonsense"):
        list(read_inputs(["nonsense://x/y.jsonl"], None, "parse"))


def test_a_read_that_fails_goes_on_where_it_was(store):
    content = os.urandom(1 << 20)
    (store.bucket / "a").write_bytes(content)
    with open_input("counted://bucket/a") as stream:
        start = stream.read(300_000)
        stream.raw._stream = None  # the connection is gone
        store.fail(2)
        assert start + stream.read() == content


class Short(io.BytesIO):
    """Content that is less than its size."""

    size: int


def test_a_file_that_is_cut_off_is_read_again(store, monkeypatch):
    content = os.urandom(500_000)
    (store.bucket / "a").write_bytes(content)
    opened, cut = CountedFileSystem._open, []

    def open_cut(self, path, *arguments, **options):
        stream = opened(self, path, *arguments, **options)
        if len(cut) == 2:
            return stream
        cut.append(path)
        short = Short(content[: 100_000 * len(cut)])
        short.size = len(content)
        return short

    monkeypatch.setattr(CountedFileSystem, "_open", open_cut)
    with open_input("counted://bucket/a") as stream:
        assert stream.read() == content


def test_photos_in_archives_and_alone(store, tmp_path):
    write_tar(store.bucket / "shard.tar", one=b"1", two=b"22")
    (store.bucket / "a.jpg").write_bytes(b"alone")
    assert read_photo("shard.tar#one", BASE) == b"1"
    assert read_photo("counted://bucket/shard.tar#two", BASE) == b"22"
    assert read_photo("a.jpg", BASE) == b"alone"
    for name in ("shard.tar#three", "no.tar#one", "no.jpg"):
        assert code_of(name) == "missing_image"
    for name in ("shard.tar#two", "a.jpg"):
        assert code_of(name, max_bytes=1) == "too_large"
    assert store.opened().count("shard.tar") == 1
    assert [path.read_bytes() for path in cached(tmp_path)] == [
        (store.bucket / "shard.tar").read_bytes()
    ]


def test_an_archive_that_changed_is_copied_again(store):
    write_tar(store.bucket / "shard.tar", one=b"1")
    assert read_photo("shard.tar#one", BASE) == b"1"
    write_tar(store.bucket / "shard.tar", one=b"2")
    os.utime(store.bucket / "shard.tar", ns=(1, 1))
    assert read_photo("shard.tar#one", BASE) == b"1"  # each process asks once
    shard_cache._open.clear()
    shard_cache._copies.clear()
    assert read_photo("shard.tar#one", BASE) == b"2"


def test_the_oldest_copies_go_and_open_ones_can_still_be_read(store, tmp_path, monkeypatch):
    for number in range(4):
        write_tar(store.bucket / f"{number}.tar", one=b"%d" % number)
    size = (store.bucket / "0.tar").stat().st_size
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", str(2 * size + 50))
    read = lambda number: read_photo(f"{number}.tar#one", BASE)  # noqa: E731
    assert [read(0), read(1), read(0), read(2)] == [b"0", b"1", b"0", b"2"]
    for number in (1, 2):
        del shard_cache._open[f"counted://bucket/{number}.tar"]
    assert [read(0), read(2)] == [b"0", b"2"]
    assert store.opened() == ["0.tar", "1.tar", "2.tar"]
    assert [read(3), read(0), read(1)] == [b"3", b"0", b"1"]  # 0 is gone, but open
    assert store.opened()[3:] == ["3.tar", "1.tar"]
    assert sum(path.stat().st_size for path in cached(tmp_path)) <= 2 * size + 50


def test_the_copy_that_was_not_read_for_the_longest_time_makes_room(store, tmp_path, monkeypatch):
    for number in range(3):
        write_tar(store.bucket / f"{number}.tar", one=b"%d" % number)
    size = (store.bucket / "0.tar").stat().st_size
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", str(2 * size))
    copies = []
    for number in (0, 1):
        assert _read_all([number]) == [b"%d" % number]
        (copy,) = set(cached(tmp_path)).difference(copies)
        os.utime(copy, ns=(copy.stat().st_atime_ns, number))  # made one after the other
        copies.append(copy)
    _read_all([0, 2])
    assert [copy.exists() for copy in copies] == [True, False]


def test_a_copy_that_is_read_is_marked_where_the_file_system_would_not(store, tmp_path):
    write_tar(store.bucket / "0.tar", one=b"0")
    _read_all([0])
    (copy,) = cached(tmp_path)
    tomorrow = copy.stat().st_mtime_ns + 86_400 * 10**9  # a read alone need not set that back
    os.utime(copy, ns=(tomorrow, copy.stat().st_mtime_ns))
    _read_all([0])
    assert copy.stat().st_atime_ns < tomorrow


def test_an_archive_that_is_larger_than_the_cache_is_named(store, monkeypatch):
    write_tar(store.bucket / "shard.tar", one=b"1")
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", "5K")
    with pytest.raises(RunProblem, match=r"counted://bucket/shard.tar: 10240 bytes, more than"):
        read_photo("shard.tar#one", BASE)
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", "much")
    with pytest.raises(UsageProblem, match="'much' is not a number of bytes such as 200G"):
        read_photo("shard.tar#one", BASE)


def test_the_part_of_a_killed_process_makes_room(store, tmp_path, monkeypatch):
    write_tar(store.bucket / "shard.tar", one=b"1")
    folder = tmp_path / "cache" / "ramctl" / "shards"
    folder.mkdir(parents=True)
    (folder / "x.tar.part").write_bytes(bytes(10_000))
    monkeypatch.setenv("RAMCTL_SHARD_CACHE", "12K")
    assert read_photo("shard.tar#one", BASE) == b"1"
    assert not (folder / "x.tar.part").exists()


def _read_all(numbers: list[int]) -> list[bytes]:
    return [read_photo(f"{number}.tar#one", BASE) for number in numbers]


def test_threads_and_processes_copy_an_archive_once(store, tmp_path):
    for number in range(3):
        write_tar(store.bucket / f"{number}.tar", one=b"%d" % number * 200_000)
    expected = [b"%d" % number * 200_000 for number in (0, 1, 2)]
    with get_context("fork").Pool(4) as pool:
        found = [pool.apply_async(_read_all, ([0, 1, 2],)) for _ in range(4)]
        assert all(one.get(60) == expected for one in found)
    with ThreadPoolExecutor(4) as threads:
        assert all(one == expected for one in threads.map(_read_all, [[0, 1, 2]] * 4))
    assert sorted(store.opened()) == ["0.tar", "1.tar", "2.tar"]
    assert len(cached(tmp_path)) == 3
    assert not list((tmp_path / "cache").rglob("*.part"))


@pytest.mark.parametrize(("room", "is_copied"), [(4, True), (3, False)])
def test_an_archive_is_copied_ahead_where_there_is_room(
    store, tmp_path, monkeypatch, room, is_copied
):
    archive = store.bucket / "a.tar"
    write_tar(archive, **{"1.jpg": b"one"})
    monkeypatch.setenv(shard_cache.VARIABLE, str(room * archive.stat().st_size))
    for name in ("a.tar#1.jpg", "plain.jpg", "absent.tar#1.jpg", "../a.tar#1.jpg"):
        shard_cache.copy_ahead(name, BASE, mixed=2)
    shard_cache.copy_ahead("a.tar#1.jpg", tmp_path, mixed=2)
    for thread in [one for one in threading.enumerate() if one.name == "ramctl-archive"]:
        thread.join()
    assert len(cached(tmp_path)) == is_copied
    assert read_photo("a.tar#1.jpg", BASE) == b"one"
    assert Counter(store.opened())["a.tar"] == 1
