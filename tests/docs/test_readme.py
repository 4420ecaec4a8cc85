"""The documents say what the program does: helps, tables, examples, lists."""

import json
import os
import re
import shutil
from pathlib import Path

import build_docs
import pytest
from PIL import Image

from ramctl.errors import REJECT_CODES
from ramctl.inference.peers import BUILT_IN
from ramctl.model.preset import preset_names
from ramctl.records.choices import CAPTION_FORMATS, EXPORT_FORMATS
from tests.conftest import REPOSITORY
from tests.docs.examples import examples, run_example
from tests.forked import write_program
from tests.support import DATA

FOLDERS = [REPOSITORY / name for name in ("ramctl", "scripts", "tests")]
PATHS = [*REPOSITORY.glob("*.md"), *(path for folder in FOLDERS for path in folder.rglob("*.md"))]
# A bundle's card keeps the commands that made it, which need data that is not here.
DOCUMENTS = {
    str(path.relative_to(REPOSITORY)): path.read_text("utf-8")
    for path in sorted(PATHS)
    if "bundles" not in path.parts
}
README = DOCUMENTS["README.md"]
CHOICES = {  # what can be named on the command line, by the document that explains it
    "ramctl/parsing/README.md": CAPTION_FORMATS,
    "ramctl/metadata/README.md": EXPORT_FORMATS,
    "ramctl/inference/peers/README.md": [f"{kind}:PATH" for kind in BUILT_IN],
    "ramctl/model/presets/README.md": preset_names(),
}


def test_generated_parts_are_current(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["build_docs.py", "--check"])
    assert build_docs.main() == 0, capsys.readouterr().err


@pytest.mark.parametrize("code", REJECT_CODES)
def test_every_reject_code_is_explained(code):
    assert f"`{code}`" in DOCUMENTS["ramctl/records/README.md"]


@pytest.mark.parametrize("document", CHOICES)
def test_every_choice_is_explained(document):
    assert not [name for name in CHOICES[document] if f"`{name}`" not in DOCUMENTS[document]]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_examples_parse(name):
    blocks = re.findall(r"```json\n(.*?)```", DOCUMENTS[name], re.DOTALL)
    lines = [line for block in blocks for line in block.strip().splitlines()]
    assert lines or name != "ramctl/records/README.md"
    assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.fixture
def workplace(tmp_path) -> Path:
    """A folder with the small photos and captions, in which a document's examples run."""
    shutil.copytree(DATA, tmp_path, dirs_exist_ok=True)
    (tmp_path / "collection").mkdir()
    for number, path in enumerate(sorted((DATA / "photos").glob("*.jpg")) * 3):
        photo = Image.open(path)  # a collection of each photo and two crops of it
        edge = 4 * (number // 8)
        photo.crop((edge, edge, *photo.size)).save(tmp_path / "collection" / f"{number:02}.png")
    tools = tmp_path / "bin"
    tools.mkdir()
    write_program(tools / "ramctl")
    return tmp_path


SLOW = {f"ramctl/{room}/README.md" for room in ("training", "inference", "metadata", "data_engine")}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name, text in DOCUMENTS.items()
        if any(examples(text))
    ],
)
def test_examples_do_what_they_show(name, workplace, captioner):
    """A document's examples in order, in one folder."""
    environment = {
        **os.environ,
        "PATH": f"{workplace / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    for example in examples(DOCUMENTS[name]):
        run_example(name, example, workplace, environment)
