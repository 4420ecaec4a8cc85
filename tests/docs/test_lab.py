"""The recipe for a lab, run as it stands with eight photos, two processes and a small model."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.command import Done, Ramctl
from tests.conftest import REPOSITORY
from tests.training.conftest import DATA, SMALL_SWIN
from tests.training.test_distributed import in_two_processes

TEXT = (REPOSITORY / "ramctl" / "training" / "README.md").read_text("utf-8")


def commands_below(heading: str) -> list[str]:
    """The commands of the first block below a heading."""
    _, _, section = TEXT.partition(heading)
    block = re.search(r"```console cluster\n(.*?)```", section, re.DOTALL)
    return re.findall(r"^\$ ((?:.*\\\n)*.*)", block[1], re.MULTILINE)


COMMANDS = commands_below("### 14 million pairs on 8 GPUs")
# What is smaller here: the same options, with other values.
SMALLER = {"-j": "2", "--preset": "small-swin.toml"}
TRAINING = ["--set", "training.steps=2", "--device", "cpu", "--set", "training.batch_size=2"]


def at_toy_size(line: str, folder: Path, text: str) -> list[str]:
    """A command of the recipe for this machine."""
    words: list[str] = []
    for word in shlex.split(line.replace("\\\n", " ")):
        words += sorted(map(str, folder.glob(word))) if "*" in word else [word]
    is_training = words[0] == "torchrun"
    words = words[words.index("ramctl") + 1 :]
    for option, value in SMALLER.items():
        if option in words:
            words[words.index(option) + 1] = value
    if "--device" in words:
        place = words.index("--device") + 1
        words[place] = "cpu,cpu" if "," in words[place] else "cpu"
    if is_training:
        words += TRAINING
    if "--preset" in words:
        words += ["--text", text]
    return words


def run(words: list[str], folder: Path, **environment: str) -> Done:
    """What a command of the recipe leaves; training runs in two processes, as by torchrun."""
    if words[0] in ("train", "finetune"):
        return in_two_processes(words, folder, **environment)
    return Ramctl(folder)(*words, **environment)


def test_the_recipe_has_all_parts():
    names = [re.search(r"\bramctl (\w+)", line)[1] for line in COMMANDS]
    assert names == ["parse", "parse", "train", "generate", "clean", "train", "finetune", "tag"]


@pytest.mark.slow
def test_each_command_of_the_recipe_works(tiny_bundle, tmp_path):
    shutil.copy(SMALL_SWIN, tmp_path / "small-swin.toml")
    (tmp_path / "captions").mkdir()
    rows = [json.loads(line) for line in (DATA / "captions.jsonl").read_text().splitlines()]
    for row in rows:
        row["image"] = row["image"].removeprefix("photos/")
    for number in range(2):
        with (tmp_path / "captions" / f"{number}.jsonl").open("w") as out:
            # Words that fewer captions name are no labels.
            out.writelines(json.dumps(row) + "\n" for row in rows[number::2] * 6)
    shutil.copytree(DATA / "photos", tmp_path / "photos")
    for line in COMMANDS:
        if "good.jsonl" in line:  # the small set of good captions
            shutil.copy(tmp_path / "clean.jsonl", tmp_path / "good.jsonl")
        done = run(at_toy_size(line, tmp_path, str(tiny_bundle / "text")), tmp_path)
        assert done.returncode == 0, f"{line}: {done.messages}"
    assert len((tmp_path / "tags.jsonl").read_text().splitlines()) == len(rows)
