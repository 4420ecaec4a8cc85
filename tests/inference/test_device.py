"""One policy for devices and number formats, whichever command asks."""

import pytest
import torch

from ramctl.device import Runtime, choose_device, uses_bf16
from ramctl.errors import RunProblem, UsageProblem


def test_a_name_that_is_no_device_is_wrong_usage():
    with pytest.raises(UsageProblem, match="not a device such as"):
        choose_device("gpu0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there_is_a_problem_of_the_run():
    assert choose_device("auto").type in ("cpu", "mps")
    with pytest.raises(RunProblem, match="torch finds none"):
        choose_device("cuda:1")


@pytest.mark.parametrize("command", [["tag", "--runtime", "torch"], ["generate"], ["train"]])
def test_every_command_says_so(ramctl, tmp_path, command):
    (tmp_path / "in.jsonl").write_bytes(b'{"image": "a.jpg", "captions": ["a dog"], "tags": []}\n')
    done = ramctl(*command, "--device", "gpu0", "in.jsonl")
    assert (done.returncode, b"not a device" in done.stderr) == (2, True), done.stderr


def test_auto_is_bf16_only_where_the_processor_has_it_and_the_caller_wants_it():
    cpu = torch.device("cpu")
    assert not uses_bf16("auto", cpu)
    assert uses_bf16("auto", cpu, on_cpu=True) == torch.cpu._is_amx_tile_supported()
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu, on_cpu=True)
    assert Runtime.choose("cpu", "bf16").dtype == "bf16"
    with pytest.raises(UsageProblem, match="fp32 or bf16"):
        Runtime.choose("cpu", "int8")
