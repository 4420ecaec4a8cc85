"""`ramctl doctor`: what it finds on a machine, for people, for programs, and from Python."""

import json
import re
import shutil

import pytest

from ramctl.checkpoints.bundle import embedded_bundle
from ramctl.installation import describe, examine
from ramctl.parts import EXTRAS, pip_line
from ramctl.pretrained.packages import SENTENCE_ENCODER


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


def test_the_model_has_a_licence_and_its_figure_a_set(shelf):
    lines = [line.split(maxsplit=1) for line in describe(examine(only_models=True))]
    (licence,) = (text for name, text in lines if name == "licence" and text.startswith("mini: "))
    assert licence.startswith("mini: Apache-2.0, as this package; trained on photos of ")
    model = next(text for name, text in lines if name == "model")
    assert re.search(r", mAP 0\.\d+ on \d+ photos of judged\.jsonl, ", model)


def test_the_weights_that_training_reads_are_found(shelf, tmp_path, monkeypatch):
    assert SENTENCE_ENCODER in EXTRAS["mini"].modules
    for module in EXTRAS["mini"].modules:
        (tmp_path / "packages" / module).mkdir(parents=True)
        (tmp_path / "packages" / module / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    assert examine()["extras"]["mini"]["missing"] == []


def test_people_are_told_what_to_install(shelf):
    found = examine()
    found["extras"]["train"]["missing"] = ["torch"]
    found["packages"]["torch"] = None
    lines = {line.split("  ")[0]: line for line in describe(found)}
    assert pip_line("train") in lines["[train]"]
    assert lines["torch"].endswith("  not installed")


def test_an_endpoint_that_is_no_url_is_named_once(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "garbage")
    (line,) = (line for line in describe(examine()) if line.startswith("endpoint"))
    text = line.removeprefix("endpoint").strip()
    assert text == "garbage: not a URL such as http://localhost:11434/v1"


def test_the_command_writes_lines_or_an_object(shelf, ramctl):
    done = ramctl("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["models"][0]["name"] == "mini"
    done = ramctl("doctor")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"ramctl ")
