"""What a spec opens, and what that loads."""

import subprocess
import sys

import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.peers import is_peer, open_peer
from ramctl.peers.registry import KINDS


def test_looking_at_a_spec_loads_no_model_library():
    code = (
        "import sys; from ramctl.peers import is_peer; is_peer('clip:here');"
        "print(sorted({'torch', 'timm', 'transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert answer.stdout == b"[]\n"


@pytest.mark.parametrize("name", ["mini", "./folder", "clip", "clip:", "hf://owner/clip", "c:/x"])
def test_names_of_bundles_are_no_peers(name):
    assert not is_peer(name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_is_refused_in_one_line(kind, tmp_path):
    with pytest.raises(RunProblem) as problem:
        open_peer(f"{kind}:{tmp_path}", ["dog"], device="cpu")
    assert "\n" not in str(problem.value) and str(tmp_path) in str(problem.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hub_name_is_looked_for_on_the_hub_alone(kind, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RunProblem, match="hf://owner/name: cannot be downloaded"):
        open_peer(f"{kind}:hf://owner/name", ["dog"])


def test_int8_is_no_precision_of_a_peer(tmp_path):
    with pytest.raises(UsageProblem, match="fp32, bf16 or fp16"):
        open_peer(f"clip:{tmp_path}", ["dog"], dtype="int8")
