"""Scripts start under any Python: they go on in .venv, or say in a line what to do."""

import ast
import os
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

SCRIPTS = REPOSITORY / "scripts"


@pytest.fixture
def checkout(tmp_path):
    """A checkout with two scripts and without an environment."""
    (tmp_path / "scripts").mkdir()
    for name in ("build_docs.py", "venv_python.py"):
        (tmp_path / "scripts" / name).write_bytes((SCRIPTS / name).read_bytes())
    (tmp_path / "ramctl").symlink_to(REPOSITORY / "ramctl")
    return tmp_path


def check_documents(checkout):
    # -S: nothing that is installed is found.
    command = [sys.executable, "-S", checkout / "scripts" / "build_docs.py", "--check"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return captured(command, env=environment | {"PATH": f"{checkout / 'bin'}:/usr/bin:/bin"})


def test_without_an_environment_a_line_says_what_to_do(checkout):
    done = check_documents(checkout)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("build_docs.py: needs click, ")


def test_the_environment_is_found(checkout):
    (checkout / ".venv").symlink_to(sys.prefix)
    done = check_documents(checkout)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_python_of_an_installed_ramctl_is_found(checkout):
    (checkout / "bin").mkdir()
    (checkout / "bin" / "ramctl").write_text(f"#!{sys.executable}\nimport ramctl\n")
    (checkout / "bin" / "ramctl").chmod(0o755)
    done = check_documents(checkout)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_script_looks_for_it_before_it_imports_what_may_be_missing():
    late = []
    for path in SCRIPTS.rglob("*.py"):
        if not os.access(path, os.X_OK):  # a module
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            text = ast.unparse(node)
            if text.startswith("use_venv("):
                break
            names = {one.name for one in getattr(node, "names", [])}
            module = getattr(node, "module", None) or min(names, default="sys")
            if module.partition(".")[0] not in {*sys.stdlib_module_names, "venv_python"}:
                late.append(f"{path.name}: {text}")
    assert not late


def test_every_script_of_python_says_so_in_its_name():
    files = [path for path in SCRIPTS.rglob("*") if path.is_file() and not path.suffix]
    python = [path.name for path in files if path.open("rb").readline().endswith(b"python3\n")]
    assert not python
