"""`ramctl caption`: photos in, captions out, with the manners of every record command."""

import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.captions.recorded_server import CAPTION, KEY
from tests.support import DATA, lines, read_rows, write_records

CAPTIONS = {
    Path(row["image"]).name: row["captions"][-1] for row in read_rows(DATA / "captions.jsonl")
}
NAMES = sorted(CAPTIONS)
MODEL = ("--model", "tiny-vl")


@pytest.fixture
def photos(tmp_path):
    return shutil.copytree(DATA / "photos", tmp_path / "photos")


def captions(rows) -> list[str]:
    return [text for row in rows for text in row["captions"]]


def test_photos_of_all_kinds_of_input_become_records(chat, photos, ramctl, tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in NAMES[:2]:
            archive.add(photos / name, name)
    write_records(tmp_path / "in.jsonl", [{"id": 1, "image": f"photos/{NAMES[3]}", "mine": None}])
    done = ramctl(
        "caption", *MODEL, "-R", "photos", "shard.tar", "in.jsonl", "-",
        stdin=lines([{"image": f"photos/{NAMES[4]}", "caption_tags": [["old"]], "captions": ["x"]}])
        + f"photos/{NAMES[5]}\n".encode(),
    )  # fmt: skip
    assert done.returncode == 0, done.messages
    want = [CAPTIONS[name] for name in (*NAMES, *NAMES[:2], *NAMES[3:6])]
    assert captions(done.rows) == want
    assert done.rows[0] == {
        "image": f"photos/{NAMES[0]}", "captions": [want[0]], "captioner": "tiny-vl",
    }  # fmt: skip
    assert done.rows[8]["image"] == f"shard.tar#{NAMES[0]}"
    assert list(done.rows[10]) == ["id", "image", "mine", "captions", "captioner"]
    assert list(done.rows[11]) == ["image", "captions", "captioner"]
    last = done.messages.splitlines()[-1]
    assert last.startswith("ramctl caption: 13 in, 13 out, 0 rejected, ")
    assert last.endswith(f" images/s (tiny-vl at {chat.url})")
    assert len(done.messages.splitlines()) == 1  # the endpoint is on this machine


def test_photos_are_sent_upright_small_and_without_metadata(chat, ramctl, tmp_path):
    photo = Image.new("RGB", (3000, 1000), "red")
    photo.paste("blue", (0, 0, 1000, 1000))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"  # to be turned clockwise
    photo.save(tmp_path / "turned.jpg", exif=exif, comment=b"a secret comment")
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    sent = []
    chat.caption_of = lambda picture: sent.append(picture) or CAPTION
    assert ramctl("caption", *MODEL, "-j1", "turned.jpg", "clear.png").returncode == 0
    assert ramctl("caption", *MODEL, "--size", "300", "turned.jpg").returncode == 0
    assert [picture.size for picture in sent] == [(341, 1024), (40, 20), (100, 300)]
    assert min(sent[0].getpixel((170, 100))) < 10 < sent[0].getpixel((170, 100))[2]  # blue on top
    assert sent[1].getpixel((5, 5)) == (255, 255, 255)
    assert all("secret" not in str(picture.info) for picture in sent)


def test_the_prompt_is_the_style_s_or_the_owner_s(chat, photos, ramctl, tmp_path):
    (tmp_path / "ask.txt").write_text("  Welches Tier?\n")
    for words in ([], ["--style", "short"], ["--prompt", "ask.txt"]):
        assert ramctl("caption", *MODEL, *words, photos / NAMES[0]).returncode == 0
    prompts = [body["messages"][0]["content"][1]["text"] for _, _, body in chat.requests]
    assert "one or two plain, dense sentences" in prompts[0] and "14 words" in prompts[1]
    assert prompts[2] == "Welches Tier?"


def test_requests_run_at_once_and_come_out_in_order(chat, photos, ramctl):
    chat.delay_s = 0.1
    for n_jobs in (1, 4):
        chat.max_at_once = 0
        done = ramctl("caption", *MODEL, "-R", "photos", "-j", n_jobs)
        assert captions(done.rows) == [CAPTIONS[name] for name in NAMES]
        assert chat.max_at_once == n_jobs


def test_faults_of_single_photos_are_rejects_and_others_come_out(chat, photos, ramctl, tmp_path):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    chat.faults = [
        "refusal", "filtered", "cut early", "think", "introduction", "half a character", "400",
        "400 filter",
    ]  # fmt: skip
    done = ramctl("caption", *MODEL, "-j1", "-R", "photos", "--rejects", "rejects.jsonl")
    assert done.returncode == 3
    rejects = read_rows(tmp_path / "rejects.jsonl")
    assert [(row["source"].removeprefix("photos/"), row["code"]) for row in rejects] == [
        ("broken.jpg", "unreadable_image"), (NAMES[0], "refused"), (NAMES[1], "refused"),
        (NAMES[2], "no_caption"), (NAMES[6], "no_caption"), (NAMES[7], "refused"),
    ]  # fmt: skip
    assert captions(done.rows) == [CAPTION] * 3


@pytest.mark.parametrize(("fault", "jobs"), [("503", "-j1"), ("401", "-j4")])
def test_an_outage_keeps_what_is_done_and_resume_does_the_rest(
    chat, photos, ramctl, tmp_path, fault, jobs
):
    words = ["caption", *MODEL, jobs, "-R", "photos", "-o", "out.jsonl", "--rejects", "no.jsonl"]
    chat.fault_of = lambda photo: fault if len(chat.requests) > 2 else ""
    done = ramctl(*words)
    assert done.returncode == 1
    assert done.messages.splitlines()[-1].startswith(f"ramctl caption: {chat.url}: {fault} ")
    assert not (tmp_path / "out.jsonl").exists()
    assert read_rows(tmp_path / "no.jsonl") == []
    chat.fault_of, asked = (lambda photo: ""), len(chat.requests)
    done = ramctl(*words, "--resume")
    assert done.returncode == 0 and " 0 rejected" in done.messages, done.messages
    assert jobs == "-j4" or len(chat.requests) - asked == len(NAMES) - 2
    assert captions(read_rows(tmp_path / "out.jsonl")) == [CAPTIONS[name] for name in NAMES]


def test_a_changed_model_prompt_or_size_is_no_resume(chat, photos, ramctl, tmp_path):
    words = ["caption", "-R", "photos", "-o", "out.jsonl"]
    assert ramctl(*words, *MODEL).returncode == 0
    for other, what in (
        (["--model", "other"], "--model"),
        ([*MODEL, "--style", "short"], "--prompt"),
        ([*MODEL, "--size", "512"], "--size"),
    ):
        done = ramctl(*words, *other, "--resume")
        assert done.returncode == 2 and f"another {what}" in done.messages
    same = [*MODEL, "--endpoint", chat.url.replace("127.0.0.1", "localhost")]
    done = ramctl(*words, *same, "--resume")  # the model moved, on this machine
    assert done.returncode == 0 and "sends" not in done.messages


def test_the_key_is_nowhere_but_in_the_request(chat, photos, ramctl, tmp_path):
    files = ["-o", "out.jsonl", "--rejects", "no.jsonl"]
    texts = []
    for fault in ("", "400", "401", "500", "page"):
        chat.fault_of = lambda photo, fault=fault: fault
        for words in ([], ["--resume"]):
            done = ramctl("caption", "-vv", *MODEL, "-R", "photos", *files, *words)
            texts += [done.messages, done.stdout.decode()]
    texts.append(ramctl("doctor").stdout.decode())
    texts += [
        path.read_text() for path in tmp_path.rglob("*") if path.suffix != ".jpg" and path.is_file()
    ]
    assert len(texts) > 13 and not [text for text in texts if KEY in text]
    assert all(headers["authorization"] == f"Bearer {KEY}" for _, headers, _ in chat.requests)


def test_another_host_is_named_once(chat, photos, ramctl):
    elsewhere = chat.url.replace("127.0.0.1", "0.0.0.0")  # leads here, but is no name of it
    done = ramctl("caption", *MODEL, "-R", "photos", "--endpoint", elsewhere)
    told = "ramctl caption: sends the photos, shrunk and without metadata, to 0.0.0.0"
    assert (done.messages.splitlines()[0], done.messages.count("sends")) == (told, 1)


def test_wrong_usage_is_one_line(chat, photos, ramctl, tmp_path):
    for words, message in (
        (["-R", "photos"], "name a model with --model"),  # the one that tags is none
        ([*MODEL, "-R", "photos", "--endpoint", "localhost:1"], "not a URL such as http://local"),
        ([*MODEL, "-R", "photos", "--endpoint", "file:///etc"], "not a URL such as http://local"),
        ([*MODEL, "-R", "photos", "--endpoint", "ftp://host/v1"], "not a URL such as http://local"),
        ([*MODEL, "-R", "photos", "--prompt", "/dev/null"], "--prompt /dev/null: no text in it"),
    ):
        done = ramctl("caption", *words, RAMCTL_MODEL="mini")
        assert done.returncode == 2 and message in done.messages, done.messages
        assert done.messages.count("\n") == 1
    assert chat.requests == []


def test_the_doctor_lists_the_endpoint_s_models(chat, ramctl):
    assert f"{chat.url} answers: tiny-vl, tiny-text\n" in ramctl("doctor").stdout.decode()
