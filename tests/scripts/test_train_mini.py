"""How scripts/mini/Makefile goes on when time is up, and what its captions are learnt from."""

import json
import re
import shutil

import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

PROBE = """\
include scripts/mini/Makefile
probe:
\t$(call begun,$(WORK)/x,records.jsonl)
\ttouch $(WORK)/done
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("ends", "code", "message"),
    [
        ("mkdir -p {work}/x.work; exit 124", 2, "not finished: scripts/train_mini again continues"),
        ("mkdir -p {work}/x.work; exit 1", 2, ""),
        ("exit 0", 0, ""),
    ],
)
def test_time_that_is_up_is_said_and_no_target_is_made(ends, code, message, tmp_path):
    ramctl = tmp_path / "ramctl"
    ramctl.write_text(f"#!/bin/sh\n{ends.format(work=tmp_path)}\n")
    ramctl.chmod(0o755)
    given = ["-f", "-", f"RAMCTL={ramctl}", f"WORK={tmp_path}", "probe"]
    done = captured(["make", *given], input=PROBE, cwd=REPOSITORY)
    assert (done.returncode, "not finished" in done.stderr) == (code, bool(message)), done.stderr
    assert message in done.stderr and (tmp_path / "done").exists() == (code == 0)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_names_scripts_that_are_there_and_no_pattern(tmp_path):
    given = ["-n", "-f", "scripts/mini/Makefile", f"WORK={tmp_path}", "SHARED=none", "install"]
    recipe = captured(["make", *given], cwd=REPOSITORY).stdout
    scripts = re.findall(r"scripts/[\w/]+\.py", recipe)
    assert scripts and all((REPOSITORY / script).is_file() for script in scripts)
    assert "%" not in recipe


def test_a_dense_caption_says_the_main_thing_briefly_too():
    coupe = "A green-grey vintage coupe with a chrome grille and a star is parked on a brick-paved"
    dense = [f"{coupe} street in front of brick houses.", "A pink water, lily-like, with a dog."]
    record = {"image": "a.jpg", "captions": dense, "caption_tags": [["car"], ["car"]]}
    short = REPOSITORY / "scripts" / "mini" / "short_captions.py"
    done = json.loads(captured([short], input=json.dumps(record)).stdout)
    short_one = "A green-grey vintage coupe is parked on a brick-paved street."
    assert done["captions"] == [dense[1], short_one]
    assert done["caption_tags"] == [["car"]] * 2
