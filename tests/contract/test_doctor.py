"""`ramctl doctor`: what it finds on a machine, for people, for programs, and from Python."""

import json
import shutil

import pytest

from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.installation import describe, examine
from ramctl.parts import EXTRAS, pip_line


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of models with a good and a damaged one."""
    shutil.copytree(embedded_bundle(), tmp_path / "models" / "mine")
    (tmp_path / "models" / "broken").mkdir()
    (tmp_path / "models" / "broken" / "bundle.json").write_text("{")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_models_and_extras_are_found(shelf):
    found = examine()
    models = {model["name"]: model for model in found["models"]}
    assert list(models) == ["mini", "broken", "mine"]
    assert models["mine"]["labels"] == models["mini"]["labels"] > 2000
    assert models["mine"]["bytes"] == models["mini"]["bytes"] > 20_000_000
    assert models["mini"]["runs_in"] == "onnxruntime int8, on the CPU"
    assert "bundle.json" in models["broken"]["problem"]
    assert set(found["extras"]) == set(EXTRAS)
    assert found["packages"]["onnxruntime"]
    assert found["devices"][0].startswith("cpu (")


def test_people_are_told_what_to_install(shelf):
    found = examine()
    found["extras"]["train"]["missing"] = ["torch"]
    found["packages"]["torch"] = None
    lines = {line.split("  ")[0]: line for line in describe(found)}
    assert pip_line("train") in lines["[train]"]
    assert lines["torch"].endswith("  not installed")


def test_the_command_writes_lines_or_an_object(shelf, ramctl):
    done = ramctl("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["models"][0]["name"] == "mini"
    done = ramctl("doctor")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"ramctl ")
