"""What is released installs into an empty environment and tags a photo; runs with RAMCTL_LONG=1."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import DATA, captured

PHOTO = DATA / "photos" / "horses.jpg"
pytestmark = pytest.mark.skipif(
    not os.environ.get("RAMCTL_LONG"), reason="takes minutes and a package index: RAMCTL_LONG=1"
)


def new_environment(folder: Path, *packages: object) -> Path:
    """The programs of an environment that holds the packages and what they need."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet"]
    subprocess.run([*pip, *packages], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    """The wheel and the source distribution of the files that git knows, by their suffixes."""
    folder = tmp_path_factory.mktemp("release")
    (folder / "source").mkdir()
    copy = f"git ls-files -z | tar c --null --files-from=- | tar x -C '{folder}/source'"
    subprocess.run(["bash", "-o", "pipefail", "-c", copy], cwd=REPOSITORY, check=True)
    python = new_environment(folder / "environment", "build") / "python"
    subprocess.run([python, "-m", "build", "--outdir", folder, folder / "source"], check=True)
    return {path.suffix: path for path in folder.iterdir() if path.is_file()}


def test_both_are_made_and_documents_of_the_code_stay_out_of_the_wheel(distributions):
    assert set(distributions) == {".whl", ".gz"}
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        documents = [name for name in wheel.namelist() if name.endswith(".md")]
    assert documents == ["ramctl/bundles/mini/README.md"]
    with tarfile.open(distributions[".gz"]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "completions/_ramctl"} <= names


@pytest.mark.parametrize("suffix", [".whl", ".gz"])
def test_what_is_installed_tags_a_photo(suffix, distributions, tmp_path):
    programs = new_environment(tmp_path / "environment", distributions[suffix])
    done = captured([programs / "ramctl", "tag", "-q", "-f", "text", PHOTO], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{PHOTO}\tanimal, field\n"
