"""The report of `eval`: what it holds, and what it does in a real browser."""

import json
import re

import pytest
from PIL import Image

from ramctl.evaluation.evaluate import EvalOptions, run
from tests.evaluation.conftest import write_lines
from tests.support import page_data

CLASSES = ["cat", "dog", "a<b"]


@pytest.fixture
def report(tmp_path):
    """Writes the report of one or two systems about eight photos; the last is missing."""
    truth, good, bad = [], [], []
    for n in range(8):
        image = f"{n} & co.png"
        if n < 7:
            Image.new("RGB", (300, 200), (30 * n, 90, 120)).save(tmp_path / image)
        tags = [["cat"], ["dog"], ["cat", "dog"], ["a<b"]][n % 4]
        truth.append({"image": image, "tags": tags})
        right = [float(name in tags) for name in CLASSES]
        names = {"label_names": CLASSES} if n == 0 else {}
        good.append({"image": image, "dense": [0.1 + 0.8 * r for r in right], **names})
        turned = [right[1], right[0], right[2]]  # cats for dogs
        bad.append({"image": image, "dense": [0.1 + 0.8 * r for r in turned], **names})
    for name, rows in (("truth", truth), ("good", good), ("bad", bad)):
        write_lines(tmp_path / f"{name}.jsonl", rows)

    def write(*systems, **options):
        path = tmp_path / "out.html"
        run(
            EvalOptions(
                truth=str(tmp_path / "truth.jsonl"),
                predictions=tuple(str(tmp_path / f"{name}.jsonl") for name in systems),
                report_file=path, output=tmp_path / "figures.json", quiet=True,
                **options,
            )
        )  # fmt: skip
        return path

    return write


def test_the_report_of_one_system_is_one_file_with_figures_mistakes_and_confusions(report):
    path = report("bad", ci=True)
    page = path.read_text("utf-8")
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "<b>cat</b> 0.90" in page and "true: dog" in page  # wrongly given
    assert "<b>dog</b> 0.10" in page and "true: dog" in page  # missed
    assert "This photo cannot be read" not in page  # a mistake was made on those that are there
    assert re.search(r"<td>cat</td><td>dog</td><td class=\"number\">2</td>", page)
    figures = json.loads(path.with_name("figures.json").read_text())
    assert f">{figures['mAP']:.4f}<" in page and f"{figures['ci']['mAP'][1]:.3f}" in page
    data = page_data(path)
    (system,) = data["systems"]
    names = data["classes"]
    assert system["precisions"][names.index("a<b")] == 1.0
    assert system["curves"][names.index("a<b")] == [[1.0, 1.0]]
    assert dict(zip(names, data["positives"], strict=True)) == {"a<b": 2, "cat": 4, "dog": 4}


def test_two_systems_stand_side_by_side_in_a_browser(browser, report):
    browser.open(report("good", "bad"))
    assert browser.value("document.querySelectorAll('#curve .curve').length") == 2
    names = "document.querySelectorAll('#classes .class > span:first-child')"
    shown = f"[...{names}].map((one) => one.firstChild.data)"
    assert browser.value(shown) == ["cat", "dog", "a<b"]  # most positives first
    choose = "byId('order').value = '{}'; byId('order').dispatchEvent(new Event('change'))"
    browser.value(choose.format("name"))
    assert browser.value(shown) == ["a<b", "cat", "dog"]
    browser.value(choose.format("gain"))
    assert browser.value(shown)[-1] == "a<b"  # the same in both
    width = "document.querySelector('#classes .class .s0 i').style.width"
    assert browser.value(width) == "100%"
    browser.value("byId('find').value = 'A<'; byId('find').dispatchEvent(new Event('input'))")
    assert browser.value(shown) == ["a<b"]
    browser.value("document.querySelector('#classes .class').click()")
    assert browser.value("byId('chosen').textContent") == "a<b"
    browser.value("byId('whole').click()")
    assert browser.value("byId('chosen').textContent") == "all classes together"
    assert browser.value("[...document.images].every((i) => i.src.startsWith('data:'))")
    assert "Wrongly given by" in browser.value("document.body.textContent")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_its_window_and_can_be_read_in_both_schemes(browser, report, width, scheme):
    browser.look(width, scheme=scheme)
    browser.open(report("good", "bad"))
    assert browser.value("document.documentElement.scrollWidth") <= width
    colour = "getComputedStyle(document.querySelector('#curve .s0')).stroke"
    assert browser.value(colour) == (
        "rgb(10, 91, 211)" if scheme == "light" else "rgb(127, 178, 255)"
    )


def test_a_photo_that_is_elsewhere_is_found_by_root_or_said_to_be_missing(report, tmp_path):
    (tmp_path / "moved").mkdir()
    for path in tmp_path.glob("*.png"):
        path.rename(tmp_path / "moved" / path.name)
    assert "This photo cannot be read" in report("bad").read_text("utf-8")
    page = report("bad", root=tmp_path / "moved").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") >= 4
