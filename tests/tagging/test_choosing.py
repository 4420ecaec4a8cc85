"""Which tags `tag` gives: kinds, and what it says of thresholds, languages and lists of words."""

from pathlib import Path

import pytest

from tests.tagging.conftest import tags


def test_kinds_leaves_only_tags_of_these_kinds(tag):
    assert tags(tag("red.png", "--kinds", "attribute,scene")) == ["red", "colour"]
    assert tags(tag("red.png", "--kinds", "object")) == []
    done = tag("red.png", "--kinds", "object,thing")
    assert (done.returncode, b"'thing' is not one of object, scene" in done.stderr) == (2, True)


def test_a_listed_word_that_the_model_knows_has_its_kind(tag):
    Path("words.txt").write_text("red\npurple\n")
    arguments = ["red.png", "--labels", "words.txt", "--threshold", "0"]
    assert sorted(tags(tag(*arguments))) == ["purple", "red"]
    assert tags(tag(*arguments, "--kinds", "attribute")) == ["red"]
    assert tags(tag(*arguments, "--kinds", "object")) == ["purple"]


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


def test_a_language_may_be_in_capitals_and_lists_of_tags_in_it(tag):
    assert "blue" in tags(tag("blue.png", "--lang", "en-GB"))
    for code in ("ZH", "zh_CN"):
        done = tag("blue.png", "--lang", code)
        assert tags(done) == ["蓝色", "colour"]
        assert done.rows[0]["tag_language"] == "zh"
    Path("list.txt").write_text("蓝色\n")
    done = tag("blue.png", "--exclude", "list.txt", "--lang", "zh")
    assert tags(done) == ["colour"] and b"not in the label system" not in done.stderr
    done = tag("blue.png", "--exclude", "list.txt")
    assert tags(done) == ["blue", "colour"] and b"not in the label system" in done.stderr
