"""What is released is all there, installs into empty environments, and does what is promised.

Environments are new ones, and the package in them is the wheel or the source distribution.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from ramctl import __version__
from ramctl.records.extras import EXTRAS
from tests.conftest import REPOSITORY
from tests.docs.examples import examples, run_example
from tests.photos.raw_files import dng
from tests.serving.conftest import answering
from tests.support import DATA, captured, web_folder, write_tar

README = (REPOSITORY / "README.md").read_text("utf-8")
PICTURE = DATA / "pictures" / "cat.jpg"
# What belongs to the repository's hosting, or to one's own checkout of it.
NOT_RELEASED = re.compile(r"\.ci/|\.github/|\.gitignore$|\.pre-commit")
# Documents of the code, but for the model's card, which is a part of the bundle.
NOT_INSTALLED = re.compile(r"(?!ramctl/checkpoints/bundles/).*\.md")


def tracked_files(folder: str = "") -> set[str]:
    """The files below a folder that git knows; all, where this is an unpacked distribution."""
    if (REPOSITORY / ".git").exists():
        listed = captured(["git", "ls-files", "-z", f"./{folder}"], cwd=REPOSITORY)
        return set(filter(None, listed.stdout.split("\0")))
    files = (path for path in (REPOSITORY / folder).rglob("*") if path.is_file())
    return {str(path.relative_to(REPOSITORY)) for path in files if path.suffix != ".pyc"}


def test_every_file_that_the_code_reads_is_in_the_wheel(monkeypatch):
    """By the list of files that setuptools makes when it builds."""
    setuptools = pytest.importorskip("setuptools", reason="needs setuptools")
    from setuptools.config.pyprojecttoml import apply_configuration

    monkeypatch.chdir(REPOSITORY)
    package = setuptools.Distribution({"script_name": "setup.py"})
    apply_configuration(package, "pyproject.toml")
    build = package.get_command_obj("build_py")
    build.ensure_finalized()
    outputs = build.get_outputs(include_bytecode=False)
    built = {str(Path(path).relative_to(build.build_lib)) for path in outputs}
    wanted = {name for name in tracked_files("ramctl") if not NOT_INSTALLED.fullmatch(name)}
    assert (wanted - built, built - tracked_files("ramctl")) == (set(), set())
    assert package.metadata.version == __version__


class Environment(NamedTuple):
    """A new environment, and the folder in which its programs run."""

    bin: Path
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Those of a shell in which it is active, without anybody's settings of Python."""
        kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return kept | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def run(self, *command: object, code: int = 0) -> str:
        """What one of its programs prints, which must end with the status `code`."""
        program = [self.bin / str(command[0]), *command[1:]]
        done = captured(program, cwd=self.folder, env=self.variables)
        output = done.stdout + done.stderr
        assert done.returncode == code, f"{command}: {output}"
        return output

    def install(self, *words: object) -> None:
        """Install by uv, which is quick and shares files with its cache."""
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet"]
        subprocess.run([*uv, "--python", self.bin / "python", *words], check=True)

    def runs_examples(self, number: int | None) -> None:
        """The first examples of the README, or all, run and print what they show."""
        shutil.copytree(DATA, self.folder, dirs_exist_ok=True)
        for example in [*examples(README)][:number]:
            python = self.bin / "python"
            run_example("README.md", example, self.folder, self.variables, python)

    def serves(self) -> None:
        """`ramctl serve` answers a photo with its tags."""
        process = subprocess.Popen(
            [self.bin / "ramctl", "serve", "--port", "0"], cwd=self.folder,
            env=self.variables, stderr=subprocess.PIPE,
        )  # fmt: skip
        with answering(process) as server:
            answer = server.ask(body=PICTURE.read_bytes())
            assert (answer.status, "cat" in answer.fields["tags"]) == (200, True)


def python_named(name: str) -> str:
    """This Python, or the newest other one that is supported and is here."""
    if name == "this Python":
        return sys.executable
    for version in ((3, 13), (3, 12), (3, 11)):
        program = shutil.which("python{}.{}".format(*version))
        if version != sys.version_info[:2] and program:
            print_version = [program, "-c", "import ensurepip, sys; print(sys.version_info[:2])"]
            if captured(print_version).stdout.strip() == str(version):
                return program
    pytest.skip("needs another Python that is supported, with venv")


@pytest.fixture
def python() -> str:
    """Of which Python an environment is; a test's parameter of that name counts more."""
    return "this Python"


@pytest.fixture
def environment(python, tmp_path) -> Iterator[Environment]:
    """One with pip alone."""
    subprocess.run([python_named(python), "-m", "venv", tmp_path / "environment"], check=True)
    (tmp_path / "empty").mkdir()
    yield Environment(tmp_path / "environment" / "bin", tmp_path / "empty")
    shutil.rmtree(tmp_path / "environment")  # six gigabytes, with an old torch


@pytest.fixture(scope="session")
def distributions(tmp_path_factory) -> dict[str, Path]:
    """The wheel and the source distribution, by their suffixes: made once, by any worker."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # which all workers of a run share
    source, built = folder / "source", folder / "dist"
    with (folder / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            for name in tracked_files():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, source / name)
            build = [sys.executable, "-m", "build", "--outdir", folder / "unfinished", source]
            subprocess.run(build, check=True)
            (folder / "unfinished").rename(built)
    return {path.suffix: path for path in built.iterdir()}


@pytest.mark.slow
def test_the_source_distribution_holds_all_that_is_tracked(distributions):
    assert set(distributions) == {".whl", ".gz"}
    with tarfile.open(distributions[".gz"]) as source:
        names = {one.name.partition("/")[2] for one in source.getmembers() if one.isfile()}
    made = re.compile(r"PKG-INFO|setup\.cfg|ramctl\.egg-info/.*")
    released = {name for name in tracked_files() if not NOT_RELEASED.match(name)}
    assert {name for name in names if not made.fullmatch(name)} == released


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_the_completions(distributions):
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {name for name in names if name.startswith("ramctl/")}
    assert package == {
        name for name in tracked_files("ramctl") if not NOT_INSTALLED.fullmatch(name)
    }
    assert {Path(name).name for name in names - package} == {
        "_ramctl",
        "ramctl.bash",
        "ramctl.fish",
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "python"),
    [(".whl", "this Python"), (".whl", "another Python"), (".gz", "this Python")],
)
def test_what_pip_installs_does_what_the_readme_shows_first(
    suffix, python, distributions, environment
):
    environment.run("pip", "install", "--quiet", distributions[suffix])
    assert environment.run("ramctl", "--version") == f"ramctl {__version__}\n"
    assert environment.run("python", "-m", "ramctl", "--version") == f"ramctl {__version__}\n"
    found = environment.run("ramctl", "doctor")
    assert re.search(r"^model +mini: 3599 labels, .* onnxruntime int8", found, re.MULTILINE), found
    tagged = environment.run("ramctl", "tag", "-q", "-f", "text", PICTURE)
    assert re.match(rf"{PICTURE}\t.*\bcat\b", tagged), tagged
    environment.runs_examples(1)
    assert (environment.folder / "page.html").stat().st_size > 10_000
    environment.serves()
    # The extra that a message names can be had as it says, though no index has the package.
    message = environment.run("ramctl", "parse", "captions.jsonl", code=1)
    line = re.search(r"(pip) (install) '(ramctl\[parse\])'$", message)
    assert line, message
    environment.run(*line.groups(), "--quiet")
    environment.run("ramctl", "parse", "-q", "captions.jsonl", "-o", "parsed-again.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "python"),
    [("parse", "this Python"), ("train", "this Python"), ("train", "another Python")],
)
def test_the_lowest_versions_that_are_allowed_are_enough(extra, python, distributions, environment):
    """Each direct dependency in the lowest version that pyproject.toml allows; wheels alone.

    With torch and transformers others are not as low as without, for these ask for more.
    """
    packages = ["-r", REPOSITORY / "pyproject.toml", "--extra", extra]
    environment.install("--resolution", "lowest-direct", "--only-binary", ":all:", *packages)
    environment.install("--no-deps", distributions[".whl"])
    (bound,) = re.findall(r'^  "click>=(.*)",$', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    click = re.search(r"^click==(.*)$", environment.run("pip", "list", "--format", "freeze"), re.M)
    assert extra != "parse" or click[1].startswith(bound)
    environment.runs_examples(1 if extra == "parse" else None)
    environment.run("ramctl", "parse", "-q", "captions.jsonl", "-o", "parsed-again.jsonl")
    if extra == "train":
        environment.run("ramctl", "clean", "-q", "parsed-again.jsonl", "-o", "cleaned-again.jsonl")
    environment.serves()


class Trial(NamedTuple):
    """A command that needs an extra, and what makes its inputs in a folder."""

    command: str
    prepare: Callable[[Path], object] = lambda folder: None


def write_heic(folder: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra [heif]")
    pillow_heif.from_pillow(Image.open(PICTURE)).save(folder / "cat.heic")


def write_photos(folder: Path) -> None:
    write_tar(folder / "photos.tar", **{"kite.jpg": PICTURE.read_bytes()})


# With a vocabulary of SentencePiece's, which is made of the captions.
SIGLIP = """
import sentencepiece
from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipTokenizer
sentencepiece.SentencePieceTrainer.train(
    input="captions.jsonl", model_prefix="spiece", vocab_size=200, hard_vocab_limit=False,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
tokenizer = SiglipTokenizer("spiece.model")
sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
sizes["num_attention_heads"] = 2
config = SiglipConfig(
    text_config=sizes | {"vocab_size": len(tokenizer), "projection_size": 32},
    vision_config=sizes | {"image_size": 32, "patch_size": 16})
photos = SiglipImageProcessor(size={"height": 32, "width": 32})
for part in (SiglipModel(config), tokenizer, photos):
    part.save_pretrained("siglip")
"""
LIGHT = {
    "caption": Trial("caption --model m photos/kite.jpg"),
    "parse": Trial(f"parse{5 * ' captions.jsonl'} --build-labels labels.jsonl"),
    "heif": Trial("tag cat.heic", write_heic),
    "raw": Trial("tag photo.dng", lambda folder: (folder / "photo.dng").write_bytes(dng())),
    "plot": Trial("eval truth.jsonl --truth truth.jsonl --plot plot.png"),
    "parquet": Trial("export truth.jsonl -f parquet -o truth.parquet"),
    "remote": Trial("tag {web}/photos.tar", write_photos),
    "ray": Trial("tag truth.jsonl --ray local -o tagged"),
}
WITH_TORCH = {
    "train": Trial("train parsed.jsonl --out model --steps 1"),
    "onnx": Trial("convert mini --to onnx --out with-graph"),
    "mini": Trial("train parsed.jsonl --out model --steps 1 --preset mini"),
    "siglip": Trial("tag --model siglip:siglip --labels words.txt photos/kite.jpg"),
}


def test_each_extra_is_tried():
    assert {*LIGHT, *WITH_TORCH} == {*EXTRAS}


def try_extra(extra: str, trial: Trial, environment: Environment) -> None:
    found = environment.run("ramctl", "doctor")
    assert re.search(rf"^\[{extra}\] +yes", found, re.MULTILINE), found
    folder = environment.folder
    shutil.copytree(DATA, folder, dirs_exist_ok=True)
    (folder / "words.txt").write_text("kite\nhorse\n")
    trial.prepare(folder)
    with web_folder(folder) as web:
        environment.run("ramctl", *trial.command.format(web=web).split(), "-q")


@pytest.mark.slow
@pytest.mark.parametrize("extra", LIGHT)
def test_an_extra_alone_is_enough_for_its_command(extra, distributions, environment, captioner):
    environment.install(f"{distributions['.whl']}[{extra}]")
    try_extra(extra, LIGHT[extra], environment)


@pytest.mark.skipif("RAMCTL_LONG" not in os.environ, reason="installs torch: RAMCTL_LONG=1")
@pytest.mark.parametrize("extra", WITH_TORCH)
def test_an_extra_that_brings_torch_is_enough_for_its_command(extra, distributions, environment):
    brought_by = "train" if extra == "onnx" else extra  # which is a part of it
    environment.run("pip", "install", "--quiet", f"{distributions['.whl']}[{brought_by}]")
    captions = shutil.copy(DATA / "captions.jsonl", environment.folder)
    environment.run("ramctl", "parse", "-q", captions, "-o", "parsed.jsonl")
    if extra == "siglip":
        environment.run("python", "-c", SIGLIP)
    try_extra(extra, WITH_TORCH[extra], environment)
