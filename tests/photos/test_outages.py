"""What a server answers, or does not, about a photo: missing is only what it says is not there."""

import gzip
import json
import socket
import subprocess
from itertools import cycle, repeat
from pathlib import Path

import pytest

from ramctl.errors import RecordProblem, RunProblem, without_secrets
from ramctl.photos import shard_cache
from ramctl.photos.archives import split_member
from ramctl.photos.decoding import read_photo
from ramctl.records import remote
from ramctl.records.remote import attempted, exists, photo_base, read_url
from tests.command import Ramctl
from tests.remote_store import write_tar
from tests.web_server import CHUNKED, SHORT, SILENT, WebServer

pytest.importorskip("aiohttp")
DATA = Path(__file__).resolve().parent.parent / "data" / "photos"
PHOTOS = ("chicken.jpg", "horses.jpg", "steps.jpg")


@pytest.fixture(autouse=True)
def quick(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMCTL_MODEL", str(tiny_bundle))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(remote, "SILENCE_S", 0.25)
    remote._http_options.cache_clear()
    for name in ("_open", "_copies"):
        monkeypatch.setattr(shard_cache, name, {})


def packed() -> bytes:
    write_tar(Path("packed.tar"), **{name: (DATA / name).read_bytes() for name in PHOTOS})
    return Path("packed.tar").read_bytes()


def with_photos(server: WebServer) -> WebServer:
    server.files = {f"/{name}": (DATA / name).read_bytes() for name in PHOTOS}
    server.files["/shard.tar"] = packed()
    return server


@pytest.fixture
def web():
    with with_photos(WebServer()) as server:
        yield server


def run(*words: object) -> tuple[int, str]:
    """The exit code and stderr of a command, run in this process."""
    for cache in (shard_cache._open, shard_cache._copies):
        cache.clear()
    done = Ramctl(Path())(*words)
    return done.returncode, done.messages


def tag(url: str, prefix: str, *options: object) -> tuple[int, str]:
    """Tag the photos at a URL by a list of records; `prefix` comes before their names."""
    rows = [{"image": f"{prefix}{name}"} for name in PHOTOS]
    Path("list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return run(
        "tag", "list.jsonl", "--root", url, "-o", "out.jsonl", "--rejects", "rejects.jsonl",
        "-j", 1, "-b", 1, *options,
    )  # fmt: skip


def written() -> dict[str, bytes]:
    return {name: Path(name).read_bytes() for name in ("out.jsonl", "rejects.jsonl")}


OUTAGES = {
    **{str(code): repeat(code) for code in (500, 503, 403, 401, 400)},
    "elsewhere": repeat("http://localhost:1/horses.jpg"),
    "login": repeat("/login?next=horses.jpg"),
    "short": repeat(SHORT),
    "silent": repeat(SILENT),
}


@pytest.mark.parametrize("prefix", ["", "shard.tar#"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_ends_the_run_and_resume_makes_it_whole(outage, prefix, web):
    web.files["/login"] = "<html>Who are you?</html>"
    path = "/shard.tar" if prefix else "/horses.jpg"
    web.faults[path] = OUTAGES[outage]
    ended_and_resumed(web, path, *tag(web.url, prefix))


@pytest.mark.parametrize("prefix", ["", "shard.tar#"])
def test_a_closed_port_ends_the_run_and_resume_makes_it_whole(prefix):
    with WebServer() as web:
        pass
    told = tag(web.url, prefix)
    with with_photos(WebServer(web.server_port)) as web:
        ended_and_resumed(web, "/shard.tar" if prefix else "/chicken.jpg", *told)


def ended_and_resumed(web: WebServer, path: str, code: int, told: str, url: str = "") -> None:
    """What a run left whose server failed it, and what the next one makes of it."""
    url = url or web.url
    assert code == 1 and f"{url}{path}: " in told, told
    assert not Path("out.jsonl").exists()
    assert Path("rejects.jsonl.part").read_bytes() == b""
    web.faults.clear()
    prefix = "shard.tar#" if path == "/shard.tar" else ""
    code, told = tag(url, prefix, "--resume")
    assert code == 0, told
    resumed = written()
    assert tag(url, prefix)[0] == 0
    assert resumed == written()


@pytest.mark.parametrize("prefix", ["", "shard.tar#"])
@pytest.mark.parametrize(
    "faults", [[500, 500], [SHORT], [CHUNKED] * 9, [SILENT], [403], [503, SHORT, 500]]
)
def test_what_passes_leaves_no_trace(web, prefix, faults):
    faulty = {path: iter(faults) for path in ("/horses.jpg", "/shard.tar")}
    without_a_trace(web, web.url, prefix, faulty)


def without_a_trace(web: WebServer, url: str, prefix: str, faults: dict) -> None:
    """Runs that fail now and then leave what a run without failures does."""
    assert tag(url, prefix)[0] == 0
    expected = written()
    web.faults |= faults
    code, told = tag(url, prefix)
    assert code == 0, told
    assert written() == expected


@pytest.mark.parametrize("status", [404, 410])
def test_what_the_server_says_is_not_there_is_a_reject_and_the_rest_is_done(web, status):
    web.faults["/horses.jpg"] = repeat(status)
    code, told = tag(web.url, "")
    assert (code, "horses.jpg: no such file" in told) == (3, True), told
    done, rejects = (list(map(json.loads, lines.splitlines())) for lines in written().values())
    assert [row["image"] for row in done] == ["chicken.jpg", "steps.jpg"]
    (reject,) = rejects
    assert (reject["code"], reject["record"]) == ("missing_image", {"image": "horses.jpg"})


def test_a_missing_file_of_records_is_told_from_a_server_that_is_away(web):
    assert run("parse", f"{web.url}/no.jsonl")[1].endswith("no.jsonl: no such file\n")
    web.faults["/some.jsonl"] = repeat(500)
    code, told = run("parse", f"{web.url}/some.jsonl")
    assert code == 1 and "no such file" not in told and "500" in told
    with pytest.raises(RunProblem, match=r"some\.jsonl: failed 4 times"):
        exists(f"{web.url}/some.jsonl")


def test_a_server_may_send_on_to_a_file_of_that_name_on_itself(web):
    web.files["/new/horses.jpg"] = web.files["/horses.jpg"]
    web.faults["/horses.jpg"] = repeat("/new/horses.jpg")
    assert read_photo("horses.jpg", photo_base("-", web.url)) == web.files["/new/horses.jpg"]
    assert exists(f"{web.url}/horses.jpg")


def test_no_redirect_leads_to_another_server(web):
    """Else a record could name one that answers by `?to=http://10.0.0.1/`."""
    with WebServer() as inner:
        inner.files["/horses.jpg"] = b"secret"
        web.faults["/horses.jpg"] = repeat(f"{inner.url}/horses.jpg")
        with pytest.raises(RunProblem, match=f"{web.url}/horses.jpg: redirects to {inner.url}"):
            read_photo("horses.jpg", photo_base("-", web.url))
        assert not inner.asked


@pytest.mark.parametrize("name", ["a%00.jpg", "a%0a.jpg", "a%ff.jpg"])
def test_a_name_that_servers_answer_by_errors_is_a_reject(web, name):
    web.faults[f"/{name}"] = repeat(400)
    with pytest.raises(RecordProblem, match="not a valid file name at a URL"):
        read_photo(name, photo_base("-", web.url))


@pytest.mark.parametrize("gives_parts", [True, False])
def test_a_long_file_that_is_cut_off_goes_on_where_it_was(web, monkeypatch, gives_parts):
    monkeypatch.setattr(remote, "COPY_BYTES", 1000)
    web.gives_parts = gives_parts
    web.files["/long"] = bytes(range(256)) * 40_000
    web.faults["/long"] = iter([SHORT, SHORT, None])
    assert read_url(f"{web.url}/long", 1 << 30) == web.files["/long"]
    assert read_url(f"{web.url}/long", 1000) == web.files["/long"][:1000]


class ForeignError(Exception):
    """An error with what its library tells besides."""

    def __init__(self, **facts: object) -> None:
        super().__init__("it said no")
        for name, value in facts.items():
            setattr(self, name, value)


def caused(by: Exception) -> Exception:
    error = FileNotFoundError("x")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "is_missing"),
    [
        (FileNotFoundError("bucket/x"), True),  # gcsfs, for 404
        (ForeignError(code=503), False),  # gcsfs, for the others
        (OSError("Forbidden: bucket/x"), False),
        (caused(KeyError("x")), True),  # an archive that is a file system
        (caused(ForeignError(status=404)), True),
        (caused(ForeignError(status=403)), False),
        (caused(ConnectionResetError("x")), False),
        (caused(TimeoutError()), False),
        (caused(ForeignError(response={"ResponseMetadata": {"HTTPStatusCode": 404}})), True),
        (caused(ForeignError(response={"ResponseMetadata": {"HTTPStatusCode": 503}})), False),
        (ForeignError(status=410), True),
        (PermissionError("Forbidden"), False),
        (socket.gaierror(-2, "Name or service not known"), False),
    ],
)
def test_only_a_store_s_own_word_is_that_nothing_is_there(error, is_missing):
    asked = []

    def ask() -> None:
        asked.append(error)
        raise error

    with pytest.raises(FileNotFoundError if is_missing else RunProblem) as caught:
        attempted("gs://bucket/x", ask)
    assert is_missing or caught.value.message.startswith("gs://bucket/x: ")
    assert len(asked) == (1 if is_missing or isinstance(error, PermissionError) else 4)


def read_anew(url: str) -> bytes:
    """The first photo in an archive, as a new process reads it."""
    shard_cache._open.clear()
    shard_cache._copies.clear()
    return read_photo("shard.tar#one", photo_base("-", url))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"1"'}, {"ETag": '"2"'}),
        ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}),
        (
            {"Last-Modified": "Sat, 28 Nov 2026 10:00:00 GMT"},
            {"Last-Modified": "Sat, 28 Nov 2026 10:00:01 GMT"},
        ),
    ],
)
@pytest.mark.parametrize("gives_parts", [True, False])
def test_an_archive_of_the_same_size_that_changed_is_copied_again(web, before, after, gives_parts):
    write_tar(Path("shard.tar"), one=b"1")
    web.gives_parts = gives_parts
    web.files["/shard.tar"], web.headers = Path("shard.tar").read_bytes(), before
    assert read_anew(web.url) == read_anew(web.url) == b"1"
    write_tar(Path("shard.tar"), one=b"2")
    web.files["/shard.tar"], web.headers = Path("shard.tar").read_bytes(), after
    assert read_anew(web.url) == b"2"


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"Last-Modified": "x"}, {}])
def test_an_archive_that_did_not_change_is_copied_once(web, headers):
    write_tar(Path("shard.tar"), one=b"1")
    web.files["/shard.tar"], web.headers = Path("shard.tar").read_bytes(), headers
    for _ in range(3):
        assert read_anew(web.url) == b"1"
    copies = list(Path("cache/ramctl/shards").glob("*.tar"))
    assert len(copies) == 1 and copies[0].read_bytes() == web.files["/shard.tar"]


def test_a_copy_of_unknown_length_keeps_to_the_limit(web, monkeypatch):
    for number in (1, 2):
        write_tar(Path("shard.tar"), one=b"1" * 300_000)
        web.files[f"/{number}.tar"] = Path("shard.tar").read_bytes()
        web.faults[f"/{number}.tar"] = repeat(CHUNKED)
    monkeypatch.setenv(shard_cache.VARIABLE, "400K")
    for number in (1, 2):
        read_photo(f"{number}.tar#one", photo_base("-", web.url))
        kept = Path("cache/ramctl/shards").iterdir()
        assert sum(path.stat().st_size for path in kept) <= 400_000
    monkeypatch.setenv(shard_cache.VARIABLE, "200K")
    shard_cache._copies.clear()
    shard_cache._open.clear()
    web.files["/3.tar"], web.faults["/3.tar"] = web.files["/1.tar"], repeat(CHUNKED)
    with pytest.raises(RunProblem, match=r"3\.tar: \d+ bytes, more than all copies may take"):
        read_photo("3.tar#one", photo_base("-", web.url))


def test_a_disk_that_copies_have_filled_has_room_for_the_next(web, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk))
        write_tar(Path("shard.tar"), one=b"1" * 600_000)
        for number in (1, 2, 3):
            web.files[f"/{number}.tar"] = Path("shard.tar").read_bytes()
            assert read_photo(f"{number}.tar#one", photo_base("-", web.url)) == b"1" * 600_000
        write_tar(Path("shard.tar"), one=b"1" * 2_000_000)
        web.files["/4.tar"] = Path("shard.tar").read_bytes()
        with pytest.raises(RunProblem, match=r"shards: No space left on device \(copying http"):
            read_photo("4.tar#one", photo_base("-", web.url))
        assert not list(disk.rglob("*.part"))
    finally:
        shard_cache._open.clear()
        subprocess.run(["umount", "-l", disk], check=True)


SECRETS = ("hunter2", "s3cr3t", "t0ken")


def assert_silent(*texts: str) -> None:
    for secret in SECRETS:
        assert not [text for text in texts if secret in text]


@pytest.mark.parametrize("is_away", [False, True])
def test_no_secret_of_a_url_is_told_or_kept(web, is_away):
    lines = ['{"image":"horses.jpg"}', "{oops", '{"image":"../x.jpg"}', '{"image":"no.jpg"}']
    web.files["/list.jsonl"] = "\n".join(lines).encode()
    if is_away:
        web.faults["/horses.jpg"] = repeat(500)
    far = web.url.replace("//", "//ann:hunter2@")
    code, told = run(
        "tag", f"{far}/list.jsonl?sig=s3cr3t&x=1#t0ken", "-o", "out.jsonl", "-j", 1, "-b", 1,
        "--rejects", "rejects.jsonl", "--stats", "stats.json",
    )  # fmt: skip
    assert code == (1 if is_away else 3), told
    shown = web.url.replace("//", "//***@")
    assert (f"{shown}/horses.jpg: failed" if is_away else f"{shown}/list.jsonl?***#***:2") in told
    left = [path for path in Path().rglob("*") if path.is_file() and "cache" not in path.parts]
    assert_silent(told, *(path.read_text("utf-8", "replace") for path in left))
    if not is_away:
        row = json.loads(Path("rejects.jsonl").read_text().splitlines()[1])
        assert row["source"] == f"{shown}/list.jsonl?***#***"
        assert row["record"] == {"image": "../x.jpg"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:p@ss@h:8/x.jsonl?a=b#c: no", "https://***@h:8/x.jsonl?***#***: no"),
        ("see (https://h/x?a).", "see (https://h/x?***)."),
        ("url='https://h/x?a', y", "url='https://h/x?***', y"),
        ("--root=s3://b/a@b/c", "--root=s3://b/a@b/c"),
        ("https://h/s.tar?a#m/1.jpg", "https://h/s.tar?***#m/1.jpg"),
        ("a@b, what?", "a@b, what?"),
        ("HTTPS:/ann:pw@h/x: no", "HTTPS://***@h/x: no"),
        ("https://h/a b.jpg?sig=s: no such file", "https://h/a b.jpg?***: no such file"),
        ("https://h/p?***&sig=s", "https://h/p?***"),
        ("see https://h/p or ask? yes", "see https://h/p or ask? yes"),
        ("scores:/data/run#3/s.jsonl: no", "scores:/data/run#3/s.jsonl: no"),
        ("C:/me@x?y", "C:/me@x?y"),
    ],
)
def test_what_is_hidden_of_a_url(text, shown):
    assert without_secrets(text) == without_secrets(shown) == shown


@pytest.mark.parametrize("query", ["?sig=a/b.c", "#x"])
def test_a_query_does_not_change_the_kind_of_a_file(web, query):
    line = b'{"image":"horses.jpg","captions":["a horse"]}\n'
    write_tar(Path("c.tar"), **{"1.jpg": b"", "1.txt": b"a horse"})
    web.files |= {
        "/a.jsonl": line, "/b.jsonl.gz": gzip.compress(line), "/c.tar": Path("c.tar").read_bytes(),
        "/d.csv": b"image,caption\nhorses.jpg,a horse\n", "/e.ndjson": line,
    }  # fmt: skip
    for name in ("a.jsonl", "b.jsonl.gz", "c.tar", "d.csv", "e.ndjson"):
        code, told = run("parse", f"{web.url}/{name}{query}", "-o", "out.jsonl")
        (row,) = map(json.loads, Path("out.jsonl").read_text().splitlines())
        assert code == 0 and row["tags"] == ["horse"], told
        assert row["image"] == ("c.tar#1.jpg" if name == "c.tar" else "horses.jpg")
    for name in ("a.jsonl", "b.jsonl.gz", "e.ndjson"):
        code, told = run("tag", f"{web.url}/{name}{query}", "-o", "out.jsonl", "-j", 1)
        assert (code, "1 out" in told) == (0, True), told
    code, told = run("tag", f"{web.url}/horses.jpg{query}")
    assert code == 2 and "an input at a URL must be JSONL" in told


def test_an_archive_s_name_may_have_a_query(web):
    assert split_member("s.tar?a=b#m/1.jpg") == ("s.tar?a=b", "m/1.jpg")
    assert split_member("s.tar#m?a#b") == ("s.tar", "m?a#b")
    name = f"{web.url}/shard.tar?a=b#horses.jpg"
    assert read_photo(name, photo_base("-", web.url)) == web.files["/horses.jpg"]


def test_a_record_that_looks_like_a_reject_has_nothing_fetched_from_elsewhere(web):
    """Nor from the disk of who reads records at a URL."""
    wrapped = {"line": 1, "stage": "tag", "code": "x", "message": "y"}
    row = {"source": f"{web.url}/x.jsonl", **wrapped, "record": {"image": "horses.jpg"}}
    Path("list.jsonl").write_text(json.dumps(row))
    assert run("tag", "list.jsonl")[0] == 3 and not web.asked
    Path("secret.jpg").write_bytes(web.files["/horses.jpg"])
    row = {"source": f"{Path.cwd()}/x.jsonl", **wrapped, "record": {"image": "secret.jpg"}}
    web.files["/list.jsonl"] = json.dumps(row).encode()
    assert run("tag", f"{web.url}/list.jsonl")[0] == 3
    row = {"source": f"{web.url}/x.jsonl", **wrapped, "record": {"image": "horses.jpg"}}
    Path("list.jsonl").write_text(json.dumps(row))
    assert run("tag", "list.jsonl", "--root", web.url)[0] == 0


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A bucket with the photos and the archive, behind a server whose faults a test says."""
    import fsspec

    with WebServer() as web:
        web.behind = s3_server
        monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        system.pipe({f"bucket/{name}": (DATA / name).read_bytes() for name in PHOTOS})
        system.pipe("bucket/shard.tar", packed())
        yield web


@pytest.mark.parametrize("prefix", ["", "shard.tar#"])
def test_s3_that_fails_now_and_then_leaves_no_trace(s3, prefix):
    faults = cycle([None, 503, None, SHORT, 500, None, None])
    without_a_trace(s3, "s3://bucket", prefix, {"*": faults})


@pytest.mark.parametrize("fault", [403, 400, 501])
def test_s3_that_stays_away_ends_the_run_and_resume_makes_it_whole(s3, fault):
    s3.faults["/bucket/horses.jpg"] = repeat(fault)
    ended_and_resumed(s3, "/horses.jpg", *tag("s3://bucket", ""), url="s3://bucket")


def test_what_s3_does_not_have_is_a_reject(s3):
    import fsspec

    fsspec.filesystem("s3").rm("bucket/horses.jpg")
    code, told = tag("s3://bucket", "")
    assert (code, "horses.jpg: no such file" in told) == (3, True), told
    assert not exists("s3://bucket/no/x")
