"""The page that tags photos in the browser gives what the command gives, and can be read."""

import base64
import os
import sys

import pytest

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.decide.thresholds import choose_labels
from tests.conftest import REPOSITORY
from tests.support import DATA, captured

PHOTOS = sorted(DATA.glob("p*s/*.jpg"), key=lambda path: path.name == "cat.jpg")  # that one is last
WORDS = ["tabby-cat", "Hot Dog", "père noël", "steam locomotive", "rock'n'roll", "zzyzx"]
SAID = "at('state').innerText.startsWith('{}')"
LISTED = "[...document.querySelectorAll('#{} li')].map((li) => li.innerText.split('\\n'))"


@pytest.mark.slow
def test_the_page_gives_the_commands_tags_and_answers(browser, tmp_path, ramctl):
    page, package = tmp_path / "page", os.environ.get("RAMCTL_ORT_WEB")  # the runtime as a .tgz
    build = [sys.executable, REPOSITORY / "scripts" / "web" / "build.py", page]
    done = captured([*build, "--runtime", package] if package else build)
    if done.stderr.startswith("needs "):
        pytest.skip(done.stderr.splitlines()[0])
    assert done.returncode == 0, done.stderr
    browser.look(1200)
    browser.open(page / "index.html")
    browser.wait(SAID.format("Ready"))
    for photo, record in zip(PHOTOS, ramctl("tag", "--dtype", "fp32", *PHOTOS).rows, strict=True):
        dropped = {"items": [], "files": [str(photo)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            browser.do("Input.dispatchDragEvent", type=kind, x=200, y=300, data=dropped)
        browser.wait(SAID.format(photo.name))
        tags = {tag: float(score) for tag, score in browser.value(LISTED.format("tags"))}
        assert [*tags] == record["tags"] and tags == pytest.approx(record["scores"], abs=0.02)

    rows = choose_labels(Bundle.open(resolve_model("mini")), WORDS, None).rows  # an English list
    for word, row in zip(WORDS, rows, strict=True):
        assert browser.value(f'[...rowOf("{word}").row]') == pytest.approx(row, abs=1e-4)
    browser.value("at('words').focus()")
    browser.do("Input.insertText", text="cat, zebra, siamese kitten, 猫")
    browser.do("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
    browser.wait("at('unknown').innerText.includes('猫')")
    answers = [[tag.split(" (")[0], said] for tag, said in browser.value(LISTED.format("answers"))]
    (tmp_path / "words").write_text("cat\nzebra\nsiamese kitten\n")
    (row,) = ramctl("tag", "--dtype", "fp32", "--labels", "words", PHOTOS[-1]).rows
    found = {tag: float(said) for tag, said in answers if "not found" not in said}
    assert found == pytest.approx(row["scores"], abs=0.01) and len(answers) == 3

    for width, scheme in ((390, "light"), (1200, "light"), (390, "dark"), (1200, "dark")):
        browser.look(width, scheme=scheme)
        assert browser.value("document.documentElement.scrollWidth") <= width
        shot = browser.do("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        (tmp_path / f"{width}-{scheme}.png").write_bytes(base64.b64decode(shot))
