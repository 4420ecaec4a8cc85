"""The prompts of label texts against the authors' own."""

import json

import pytest

from ramctl.text.clip import label_prompts, templates


@pytest.mark.shared
def test_prompts_equal_the_authors_for_every_name_of_the_fixture(shared):
    fixture = json.loads((shared / "parity" / "misc_expected.json").read_text("utf-8"))
    expected = fixture["openset_prompts"]
    assert len(expected) == 8
    for name, texts in expected.items():
        assert label_prompts(name) == texts


def test_there_are_63_templates_and_an_empty_label_gets_them_all():
    assert len(set(templates())) == 63
    assert len(label_prompts("")) == 63
