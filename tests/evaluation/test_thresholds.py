"""What `--threshold` may say."""

import numpy as np
import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.evaluation.thresholds import Cut
from ramctl.labels import LabelSystem


@pytest.mark.parametrize("text", ["nan", "-inf", "nowhere.jsonl"])
def test_a_threshold_that_is_neither_number_nor_file_is_wrong_usage(text):
    with pytest.raises(UsageProblem):
        Cut.parse(text)


def test_a_file_may_name_classes_or_tags(tmp_path):
    path = tmp_path / "thresholds.jsonl"
    path.write_text('{"tag": "cat", "threshold": 0.3}\n{"tag": "kitten", "threshold": 0.2}\n')
    cut = Cut.parse(str(path))
    np.testing.assert_equal(
        cut.for_classes(LabelSystem.from_tags(["cat", "dog"]), None), [0.3, np.nan]
    )
    tags = LabelSystem.from_tags(["dog", "kitten"])
    np.testing.assert_equal(cut.for_tags(tags, None), [0.5, 0.2])


def test_a_bare_list_of_numbers_must_fit_classes_or_tags(tmp_path):
    path = tmp_path / "thresholds.txt"
    path.write_text("0.1\n0.2\n")
    cut = Cut.parse(str(path))
    two, three = LabelSystem.from_tags("ab"), LabelSystem.from_tags("abc")
    np.testing.assert_equal(cut.for_classes(two, n_listed=2), [0.1, 0.2])
    np.testing.assert_equal(cut.for_tags(three, n_listed=2), [0.5] * 3)
    np.testing.assert_equal(cut.for_classes(two, n_listed=None), [np.nan] * 2)
    np.testing.assert_equal(cut.for_tags(two, n_listed=None), [0.1, 0.2])
    np.testing.assert_equal(cut.for_classes(three, n_listed=3), [np.nan] * 3)
    with pytest.raises(RunProblem, match="2 thresholds fit neither"):
        cut.for_tags(three, n_listed=3)


@pytest.mark.parametrize("text", ["1.5", "-0.1"])
def test_only_logits_have_thresholds_beyond_probabilities(text):
    with pytest.raises(UsageProblem, match="a probability is between 0 and 1"):
        Cut.parse(text).require_probability()


@pytest.mark.parametrize("text", ["0", "1", "0.25"])
def test_a_threshold_may_be_any_probability(text):
    cut = Cut.parse(text)
    cut.require_probability()
    assert (cut.value, cut.is_default, cut.description) == (float(text), False, str(float(text)))
