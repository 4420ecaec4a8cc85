"""A name that is nearly right says what would be."""

import re
import shutil
from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import embedded_bundle, resolve_model
from ramctl.errors import UsageProblem
from ramctl.pretrained.hub import local_path
from ramctl.pretrained.known import KnownModel
from tests.support import DATA


@pytest.mark.parametrize("name", ["ram", "ram-plus", "tag2text"])
def test_a_known_model_that_is_not_here_says_what_brings_it(name, monkeypatch, tmp_path):
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path))
    with pytest.raises(UsageProblem, match=rf"`ramctl convert {name}` downloads it"):
        resolve_model(name)
    with pytest.raises(UsageProblem, match=r"none in .* \(`ramctl doctor` lists"):
        resolve_model("other")


@pytest.fixture
def no_models(monkeypatch, tmp_path):
    """Neither a shelf nor the hub's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path / "shelf"))
    monkeypatch.setattr(KnownModel, "cached", lambda self: None)


@pytest.mark.parametrize("name", ["ram-plus", "clip"])
def test_a_folder_here_does_not_stand_for_a_known_model(name, no_models, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, name)
    words = ["tag", "-q", DATA / "photos" / "kite.jpg"]
    labels = ["--labels", f"{name}/labels.jsonl"] if name == "clip" else []
    done = ramctl(*words, "--model", name, *labels)
    assert (done.returncode, done.messages.count("\n")) == (2, 1)
    assert "is not on this machine" in done.messages
    assert done.messages.endswith(f"; the folder here is ./{name}\n")
    assert ramctl(*words, "--model", f"./{name}").returncode == 0
    lines = ramctl("doctor").stdout.decode().splitlines()
    (here,) = (line for line in lines if line.startswith("model "))
    assert here.split()[1] == "mini:"


def test_the_known_model_wins_over_a_folder_or_file_here(no_models, tiny_bundle, ramctl):
    shutil.copytree(tiny_bundle, "shelf/ram-plus")
    shutil.copytree(tiny_bundle, "ram-plus")
    shutil.copytree(tiny_bundle, "mini")
    Path("ram").touch()
    assert resolve_model("ram-plus") == Path("shelf/ram-plus").absolute()
    assert resolve_model("mini") == embedded_bundle()
    with pytest.raises(UsageProblem, match="`ramctl convert ram` downloads it"):
        resolve_model("ram")
    record = b'{"captions":["a kite over the beach"]}\n'
    labels = [ramctl("parse", "--labels", name, stdin=record) for name in ("mini", "./mini")]
    assert labels[0].stdout != labels[1].stdout
    assert labels[0].stdout == ramctl("parse", "--labels", embedded_bundle(), stdin=record).stdout


def test_a_checkpoint_is_no_bundle(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("ram.pth").touch()
    for name in ("ram.pth", "./ram.pth"):
        with pytest.raises(UsageProblem, match=rf"a file, not a bundle; `ramctl convert {name} "):
            resolve_model(name)


def test_a_tagger_of_the_hub_needs_its_kind_and_prefix():
    for title, kind in (("openai/clip-vit-base", "clip:"), ("google/siglip2", "siglip:")):
        with pytest.raises(UsageProblem, match=rf"on the hub it would be {kind}hf://{title}$"):
            resolve_model(title)
    with pytest.raises(UsageProblem, match=r"on the hub it would be hf://owner/name$"):
        resolve_model("owner/name")


def test_a_title_of_the_hub_needs_its_prefix():
    with pytest.raises(UsageProblem, match=r"; on the hub it would be hf://openai/clip-vit"):
        local_path("openai/clip-vit-base-patch32")
    for path in ("/openai/clip", "openai/clip/model", "clip", "../clip"):
        with pytest.raises(UsageProblem, match=r"no such file or folder$"):
            local_path(path)


@pytest.mark.parametrize(
    ("name", "known"),
    [("RAM++", "ram-plus"), ("ram_plus", "ram-plus"), ("RAM", "ram"), ("Mini", "mini"),
     ("grounding_dino", "grounding-dino"), ("tag2txt", "tag2text")],
)  # fmt: skip
def test_a_name_that_is_spelt_otherwise_is_suggested(name, known, no_models):
    with pytest.raises(
        UsageProblem, match=rf"model '{re.escape(name)}': .*; did you mean '{known}'\?"
    ):
        resolve_model(name)
