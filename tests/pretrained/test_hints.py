"""A name that is nearly right says what would be."""

from pathlib import Path

import pytest

from ramctl.checkpoints.bundle import resolve_model
from ramctl.errors import UsageProblem
from ramctl.pretrained.hub import local_path


@pytest.mark.parametrize("name", ["ram", "ram-plus", "tag2text"])
def test_a_known_model_that_is_not_here_says_what_brings_it(name, monkeypatch, tmp_path):
    monkeypatch.setenv("RAMCTL_MODELS", str(tmp_path))
    with pytest.raises(UsageProblem, match=rf"`ramctl convert {name}` downloads it"):
        resolve_model(name)
    with pytest.raises(UsageProblem, match=r"none in .* \(`ramctl doctor --models` lists"):
        resolve_model("other")


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
