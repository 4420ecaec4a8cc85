"""Label embeddings are computed once, and a broken cache is only slow."""

import numpy as np
import pytest

from ramctl.text.clip import cached_rows


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows_of(texts):
    return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


def never(texts):
    raise AssertionError(f"computed again: {texts}")


def test_only_new_texts_are_computed_and_then_known_too_and_order_is_the_callers():
    first = cached_rows("a", ["dog", "zebra", "dog"], rows_of)
    np.testing.assert_array_equal(first, rows_of(["dog", "zebra", "dog"]))
    asked = []
    cached_rows("a", ["dog", "été"], lambda new: (asked.extend(new), rows_of(new))[1])
    assert asked == ["été"]
    known = ["été", "zebra", "dog"]
    np.testing.assert_array_equal(cached_rows("a", known, never), rows_of(known))


def test_another_source_has_its_own_rows():
    cached_rows("a", ["dog"], rows_of)
    other = cached_rows("b", ["dog"], lambda new: rows_of(new) + 1)
    np.testing.assert_array_equal(other, rows_of(["dog"]) + 1)


def test_a_damaged_cache_is_computed_again(cache):
    cached_rows("a", ["dog"], rows_of)
    (file,) = (cache / "ramctl" / "text").iterdir()
    file.write_bytes(file.read_bytes()[:40])
    np.testing.assert_array_equal(cached_rows("a", ["dog"], rows_of), rows_of(["dog"]))
    np.testing.assert_array_equal(cached_rows("a", ["dog"], never), rows_of(["dog"]))


@pytest.mark.parametrize("in_the_way", ["file for a folder", "folder for a file"])
def test_a_cache_that_cannot_be_written_is_no_failure(cache, in_the_way):
    if in_the_way == "file for a folder":
        cache.write_text("")
    else:
        (cache / "ramctl" / "text" / "a.safetensors").mkdir(parents=True)
    np.testing.assert_array_equal(cached_rows("a", ["dog"], rows_of), rows_of(["dog"]))
