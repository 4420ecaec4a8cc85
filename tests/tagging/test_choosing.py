"""Which tags `tag` gives, and what it says of thresholds, languages and lists of words."""

from pathlib import Path

import pytest

from tests.tagging.conftest import tags


def test_only_listed_words_are_given(tag):
    Path("words.txt").write_text("red\npurple\n")
    arguments = ["red.png", "--labels", "words.txt", "--threshold", "0"]
    assert sorted(tags(tag(*arguments))) == ["purple", "red"]


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "inf"])
def test_a_threshold_that_is_no_score_is_wrong_usage(text, tag):
    done = tag("red.png", f"--threshold={text}")
    assert (done.returncode, b"not between 0 and 1" in done.stderr) == (2, True)


@pytest.mark.parametrize("content", ['{"tag": "red", "threshold": 1.5}\n', "0.1\n2\n0.3\n0.4\n"])
def test_a_threshold_in_a_file_that_is_no_score_is_named(content, tag):
    Path("thresholds").write_text(content)
    done = tag("red.png", "--threshold", "thresholds")
    assert done.returncode == 1
    assert b"thresholds:" in done.stderr and b"number from 0 to 1" in done.stderr


def test_an_unknown_language_is_wrong_usage_that_names_the_known_ones(tag):
    assert tags(tag("blue.png", "--lang", "zh")) == ["蓝色", "colour"]
    done = tag("blue.png", "--lang", "xx")
    assert (done.returncode, b"language 'xx': the labels have names in zh" in done.stderr) == (
        2,
        True,
    )
    Path("words.txt").write_text("red\n")
    done = tag("blue.png", "--labels", "words.txt", "--lang", "zh")
    assert b"the labels have no names in other languages" in done.stderr
    Path("words.txt").write_text("blue\npurple\n")
    assert "蓝色" in tags(tag("blue.png", "--labels", "words.txt", "--lang", "zh"))


def test_a_language_may_be_in_capitals(tag):
    assert "blue" in tags(tag("blue.png", "--lang", "en-GB"))
    for code in ("ZH", "zh_CN"):
        done = tag("blue.png", "--lang", code)
        assert tags(done) == ["蓝色", "colour"]
        assert done.rows[0]["tag_language"] == "zh"
