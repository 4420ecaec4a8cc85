"""The recipe for SLURM, with stubs of what it calls: arguments and exit codes."""

import os
import re

import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

TEXT = (REPOSITORY / "ramctl" / "tagging" / "README.md").read_text("utf-8")
(SCRIPT,) = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", TEXT, re.DOTALL)
STUB = '#!/bin/bash\necho "$(basename "$0") $*" >> called\nexit "${CODE:-0}"\n'


@pytest.mark.parametrize(("code", "ended"), [(0, 0), (3, 0), (124, 0), (1, 1)])
def test_a_task_does_its_shard_and_is_requeued_when_its_time_is_up(code, ended, tmp_path):
    (tmp_path / "tag.sbatch").write_text(SCRIPT)
    for name in ("ramctl", "scontrol"):
        (tmp_path / name).write_text(STUB)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "1.tar").touch()
    (tmp_path / "scontrol").write_text(STUB.replace("${CODE:-0}", "0"))
    path = f"{tmp_path}:{os.environ['PATH']}"
    slurm = {"ARRAY_TASK_ID": "3", "ARRAY_TASK_COUNT": "64", "ARRAY_JOB_ID": "9"}
    environment = {f"SLURM_{name}": value for name, value in slurm.items()} | {
        "SLURM_CPUS_PER_TASK": "16", "PATH": path, "CODE": str(code),
    }  # fmt: skip
    assert captured(["bash", "-n", "tag.sbatch"], cwd=tmp_path).returncode == 0
    done = captured(["bash", "tag.sbatch"], cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (ended, "")
    tag, *requeued = (tmp_path / "called").read_text().splitlines()
    assert "shards/1.tar" in tag and "--shard 3/64 " in tag and "-o tags/00003.jsonl" in tag
    assert requeued == ["scontrol requeue 9_3"] * (code == 124)
