"""What is released is all there, installs into empty environments, and does what is promised."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from ramctl.parts import __version__
from tests.conftest import REPOSITORY
from tests.docs.examples import examples, run_example
from tests.serving.conftest import answering
from tests.support import DATA, captured

README = (REPOSITORY / "README.md").read_text("utf-8")
PICTURE = DATA / "pictures" / "cat.jpg"
# What belongs to the repository's hosting, or to one's own checkout of it.
NOT_RELEASED = re.compile(r"\.ci/|\.github/|\.gitignore$|\.pre-commit")
# Documents of the code, but for the model's card, which is a part of the bundle.
NOT_INSTALLED = re.compile(r"(?!ramctl/bundles/).*\.md")


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
        """Those of a shell in which it is active, and nobody's settings."""
        kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return kept | {"PATH": path, "HOME": str(self.folder.parent), "OMP_NUM_THREADS": "1"}

    def run(self, *command: object, code: int = 0) -> str:
        """What one of its programs prints, which must end with the status `code`."""
        program = [self.bin / str(command[0]), *command[1:]]
        done = captured(program, cwd=self.folder, env=self.variables)
        output = done.stdout + done.stderr
        assert done.returncode == code, f"{command}: {output}"
        return output

    def tags_a_photo_over_http(self) -> None:
        """Start `ramctl serve`, send it a photo, end it."""
        process = subprocess.Popen(
            [self.bin / "ramctl", "serve", "--port", "0"], cwd=self.folder,
            env=self.variables, stderr=subprocess.PIPE,
        )  # fmt: skip
        with answering(process) as server:
            answer = server.ask(body=PICTURE.read_bytes())
            assert (answer.status, "cat" in answer.fields["tags"]) == (200, True)


def new_environment(folder: Path, python: str = sys.executable) -> Environment:
    """An environment with pip alone, and an empty folder beside it."""
    subprocess.run([python, "-m", "venv", folder / "environment"], check=True)
    (folder / "empty").mkdir()
    return Environment(folder / "environment" / "bin", folder / "empty")


def other_python() -> str:
    """The newest Python that is supported, is here, and is another one than this."""
    for version in ((3, 13), (3, 12), (3, 11)):
        program = shutil.which("python{}.{}".format(*version))
        if version != sys.version_info[:2] and program:
            print_version = [program, "-c", "import ensurepip, sys; print(sys.version_info[:2])"]
            if captured(print_version).stdout.strip() == str(version):
                return program
    pytest.skip("needs another Python that is supported, with venv")


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
@pytest.mark.parametrize("python", ["this Python", "another Python"])
@pytest.mark.parametrize("suffix", [".whl", ".gz"])
def test_what_pip_installs_does_what_the_readme_shows_first(
    suffix, python, distributions, tmp_path
):
    program = sys.executable if python == "this Python" else other_python()
    installed = new_environment(tmp_path, program)
    installed.run("pip", "install", "--quiet", distributions[suffix])
    assert installed.run("ramctl", "--version") == f"ramctl {__version__}\n"
    assert installed.run("python", "-m", "ramctl", "--version") == f"ramctl {__version__}\n"
    assert re.search(
        r"^model +mini: 2105 labels, .* onnxruntime", installed.run("ramctl", "doctor"), re.M
    )
    assert installed.run("ramctl", "tag", "-q", "-f", "text", PICTURE).split("\t")[0] == str(
        PICTURE
    )
    shutil.copytree(PICTURE.parent, installed.folder / "pictures")
    run_example("README.md", next(examples(README)), installed.folder, installed.variables)
    assert (installed.folder / "page.html").stat().st_size > 10_000
    # The extra that a message names can be had as it says, though no index has the package.
    message = installed.run("ramctl", "serve", code=1)
    line = re.search(r"(pip) (install) '(ramctl\[serve\])'$", message)
    assert line, message
    installed.run(*line.groups(), "--quiet")
    installed.tags_a_photo_over_http()


@pytest.mark.slow
def test_the_lowest_versions_that_are_allowed_are_enough(distributions, tmp_path):
    """Each direct dependency in the lowest version that pyproject.toml allows; wheels alone."""
    installed = new_environment(tmp_path)
    uv = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--python",
        installed.bin / "python",
    ]
    lowest = ["--resolution", "lowest-direct", "--only-binary", ":all:"]
    extras = ["--extra", "train", "--extra", "serve"]
    subprocess.run([*uv, *lowest, *extras, "-r", REPOSITORY / "pyproject.toml"], check=True)
    subprocess.run([*uv, "--no-deps", distributions[".whl"]], check=True)
    versions = installed.run("pip", "list", "--format", "freeze")
    assert "click==8.2.0\n" in versions and "numpy==2.1.0\n" in versions
    shutil.copytree(DATA, installed.folder, dirs_exist_ok=True)
    for example in examples(README):
        run_example(
            "README.md", example, installed.folder, installed.variables, installed.bin / "python"
        )
    installed.tags_a_photo_over_http()
