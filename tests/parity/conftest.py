"""The authors' recorded runs: shrunken models, inputs, outputs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.official import convert_official, read_official
from ramctl.model.caption_tokenizer import CaptionTokenizer, bert_tokenizer
from ramctl.model.preset import Preset
from ramctl.model.ram import RAM
from tests.command import Done
from tests.support import one_thread

__all__ = ["one_thread"]

FILES = {"ram": "ram_tiny", "ram-plus": "ram_plus_tiny", "tag2text": "tag2text_tiny"}
N_LABELS = {"ram": 24, "ram-plus": 24, "tag2text": 3429}


@dataclass
class Recorded:
    """One architecture: our model with the authors' weights, and what theirs gave."""

    architecture: str
    preset: Preset
    model: RAM
    io: dict[str, torch.Tensor]
    facts: dict[str, Any]
    parity: Path

    def tokenizer(self) -> CaptionTokenizer:
        assert self.preset.model.captioning is not None
        return CaptionTokenizer(
            bert_tokenizer(self.parity / "tiny_vocab.txt"), self.preset.model.captioning
        )


@pytest.fixture(scope="session")
def parity(shared: Path) -> Path:
    return shared / "parity"


@pytest.fixture(scope="session")
def load_recorded(parity: Path):
    cache: dict[str, Recorded] = {}

    def load(architecture: str) -> Recorded:
        if architecture not in cache:
            name = FILES[architecture]
            tensors = read_official(parity / f"{name}.safetensors")
            preset, model = convert_official(architecture, tensors, N_LABELS[architecture])
            io = load_file(parity / f"{name}_io.safetensors")
            facts = json.loads((parity / f"{name}.json").read_text("utf-8"))
            cache[architecture] = Recorded(architecture, preset, model.eval(), io, facts, parity)
        return cache[architecture]

    return load


@pytest.fixture(params=list(FILES))
def recorded(request, load_recorded) -> Recorded:
    return load_recorded(request.param)


@pytest.fixture
def tag2text(load_recorded) -> Recorded:
    return load_recorded("tag2text")


@contextmanager
def capture(modules: dict[str, torch.nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """The modules' outputs (of a tuple the first) by name, filled while the block runs."""
    states: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module, inputs, output):
            states[name] = (output[0] if isinstance(output, tuple) else output).detach()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@pytest.fixture
def files(tmp_path, parity):
    """The authors' text files for a shrunken model, and its weights as a `.pth`."""

    def make(architecture):
        name = FILES[architecture]
        facts = json.loads((parity / f"{name}.json").read_text("utf-8"))
        io = load_file(parity / f"{name}_io.safetensors")
        weights = tmp_path / f"{name}.pth"
        torch.save({"model": load_file(parity / f"{name}.safetensors"), "epoch": 1}, weights)
        arguments = [weights, "--arch", architecture, "--out", tmp_path / "bundle"]
        if architecture == "tag2text":
            tags = parity.parent / "labels" / "ram" / "tag2text_ori_tag_list.txt"
        else:
            tags = tmp_path / "tags.jsonl"
            names = facts.get("tag_list_chinese", facts["tag_list"])
            pairs = zip(facts["tag_list"], names, strict=True)
            rows = [{"tag": tag, "names": {"zh": name.strip()}} for tag, name in pairs]
            tags.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        thresholds = tmp_path / "thresholds.txt"
        thresholds.write_text("\n".join(map(str, io["class_threshold"].tolist())), "utf-8")
        arguments += ["--tags", tags, "--thresholds", thresholds]
        if architecture != "ram-plus":
            arguments += ["--vocab", parity / "tiny_vocab.txt"]
        return arguments, facts, io

    return make


@pytest.fixture
def convert(files, ramctl, tmp_path):
    """Runs `ramctl convert` on the authors' files; the bundle, and what the command left behind."""

    def run(architecture: str, *options: object) -> tuple[Bundle, Done]:
        done = ramctl("convert", *files(architecture)[0], *options)
        assert done.returncode == 0, done.messages
        return Bundle.open(tmp_path / "bundle"), done

    return run
