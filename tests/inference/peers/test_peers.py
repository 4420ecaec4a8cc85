"""What a spec opens, and what that loads."""

import re
import sys
from functools import partial

import pytest

from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.peers import BUILT_IN, GROUP, open_peer
from tests.conftest import REPOSITORY

KINDS = [*BUILT_IN, "blip", "blip-itc", "ml-decoder", "mkt", "mask2former"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_is_refused_in_one_line(kind, tmp_path):
    with pytest.raises(RunProblem) as problem:
        open_peer(f"{kind}:{tmp_path}", ["dog"], device="cpu")
    assert "\n" not in str(problem.value) and str(tmp_path) in str(problem.value)


@pytest.mark.parametrize("spec", ["clip:", "clip", "clap:here", "resnet"])
def test_what_names_no_tagger_is_wrong_usage(spec):
    with pytest.raises(UsageProblem, match=r"expected KIND:PATH with blip, .*clip, ") as problem:
        open_peer(spec, ["dog"])
    manual = str(problem.value).split()[-1]
    assert "## A tagger of your own" in (REPOSITORY / manual).read_text("utf-8")


@pytest.fixture
def colours(tmp_path):
    """The example of the README as an installed package."""
    readme = (REPOSITORY / "ramctl" / "inference" / "peers" / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    (entry,) = re.findall(r'^(\w+) = "(colours:\w+)"', project, re.MULTILINE)
    assert f'[project.entry-points."{GROUP}"]' in project
    (tmp_path / "colours.py").write_text(code)
    info = tmp_path / "ramctl_colours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ramctl-colours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{' = '.join(entry)}\nbroken = colours:No\n")
    (tmp_path / "palette.txt").write_text("black 000000\ngrey 808080\nwhite ffffff\n")
    (tmp_path / "words.txt").write_text("pink\ngrey\n")
    return tmp_path


def test_an_installed_package_brings_a_tagger(colours, ramctl, monkeypatch):
    monkeypatch.syspath_prepend(colours)
    photo = REPOSITORY / "tests" / "data" / "photos" / "pasture.jpg"
    tag = partial(ramctl, "tag", "-q", photo, "--threshold", "0", "--model")
    (row,) = tag("colours:palette.txt").rows
    assert set(row["scores"]) <= {"black", "grey", "white"}
    assert sum(row["scores"].values()) == pytest.approx(1, abs=1e-4)
    refused = tag("colours:palette.txt", "--thorough")
    assert (refused.returncode, refused.rows) == (2, [])
    assert "--thorough needs a bundle, not colours:palette.txt" in refused.messages
    for option in (["--device", "cuda"], ["--dtype", "bf16"]):
        refused = tag("colours:palette.txt", *option)
        assert (refused.returncode, refused.rows) == (2, [])
        assert "model colours:palette.txt: runs on the CPU in fp32" in refused.messages
    (few,) = tag("colours:palette.txt", "--labels", "words.txt").rows
    assert few["scores"] == {"grey": row["scores"]["grey"]}
    done = tag("broken:palette.txt")
    assert done.returncode == 1 and "colours:No cannot be imported" in done.messages
    del sys.modules["colours"]
