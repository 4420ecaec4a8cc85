"""The wheel is complete, installs into empty environments, and does what is promised."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from ramctl import __version__
from tests.apps.conftest import answering
from tests.conftest import REPOSITORY
from tests.docs.examples import examples, run_example
from tests.support import DATA, captured

README = (REPOSITORY / "README.md").read_text("utf-8")
PICTURE = DATA / "pictures" / "cat.jpg"
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

    def runs_examples(self, number: int) -> None:
        """The first examples of the README run and print what they show."""
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
    shutil.rmtree(tmp_path / "environment")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the files that git knows."""
    folder = tmp_path_factory.mktemp("distribution")
    for name in tracked_files():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / "source" / name)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, folder / "source"]
    subprocess.run(build, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("python", ["this Python", "another Python"])
def test_what_pip_installs_does_what_the_readme_shows_first(python, wheel, environment):
    environment.run("pip", "install", "--quiet", wheel)
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
def test_the_lowest_versions_that_are_allowed_are_enough(wheel, environment):
    """Each direct dependency in the lowest version that pyproject.toml allows; wheels alone."""
    packages = ["-r", REPOSITORY / "pyproject.toml", "--extra", "parse"]
    environment.install("--resolution", "lowest-direct", "--only-binary", ":all:", *packages)
    environment.install("--no-deps", wheel)
    environment.runs_examples(1)
    environment.run("ramctl", "parse", "-q", "captions.jsonl", "-o", "parsed-again.jsonl")
    environment.serves()
