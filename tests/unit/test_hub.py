"""Names that ask for a download, and names that do not."""

from pathlib import Path

import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.io.hub import is_remote, local_path


def test_a_plain_name_is_a_path_and_never_fetched():
    assert not is_remote("models/ram.pth")
    assert local_path("models/ram.pth") == Path("models/ram.pth")


@pytest.mark.parametrize("name", ["hf://", "hf://ram", "hf://a/b/c:file"])
def test_a_name_without_owner_and_repository_is_wrong_usage(name):
    with pytest.raises(UsageProblem, match="expected hf://owner/name"):
        local_path(name)


@pytest.mark.parametrize("name", ["hf://owner/nothing:weights.pth", "hf://owner/nothing"])
def test_what_cannot_be_fetched_is_said_in_one_line(name, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RunProblem, match="cannot be fetched") as caught:
        local_path(name)
    assert "\n" not in caught.value.message
