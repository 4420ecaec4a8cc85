"""Names of folders, files and hub repositories."""

import pytest

from ramctl.checkpoints.bundle import resolve_model
from ramctl.errors import RunProblem, UsageProblem
from ramctl.pretrained.hub import local_path


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_a_path_stands_for_itself(tmp_path):
    assert local_path(str(tmp_path)) == tmp_path


def test_a_missing_path_is_wrong_usage_and_never_looked_for_elsewhere(tmp_path):
    with pytest.raises(UsageProblem, match="no such file or folder"):
        local_path(str(tmp_path / "openai" / "clip"))


@pytest.mark.parametrize("name", ["hf://clip", "hf://a/b/c", "hf:///b"])
def test_a_hub_name_needs_an_owner_and_a_name(name):
    with pytest.raises(UsageProblem, match="hf://owner/name"):
        local_path(name)


@pytest.mark.parametrize("name", ["hf://owner/name", "hf://owner/name:file.bin"])
def test_a_hub_that_does_not_answer_is_one_line(offline, name):
    with pytest.raises(RunProblem, match=f"{name}: cannot be downloaded") as problem:
        local_path(name)
    assert "\n" not in str(problem.value)


def test_a_model_may_be_a_hub_name(offline):
    with pytest.raises(RunProblem, match="hf://owner/name: cannot be downloaded"):
        resolve_model("hf://owner/name")
