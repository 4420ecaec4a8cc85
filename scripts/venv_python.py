"""Lets a script start under any Python: it goes on in the project's own environment."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CORE = ("click", "onnxruntime", "simplejpeg")  # who has these has all that ramctl needs


def use_venv(*modules: str) -> None:
    """Imports come from this checkout, and from another Python where the running one lacks some.

    That is the one in .venv, else the one that `ramctl` on the PATH is installed for. `modules` are
    those that the extras bring. Ends the program with a line where that lacks them too.
    """
    sys.path.insert(0, str(ROOT))
    missing = [name for name in (*CORE, *modules) if find_spec(name) is None]
    if not missing:
        return
    problem = f"{Path(sys.argv[0]).name}: needs {', '.join(missing)}"
    python = VENV / "bin" / "python"
    if not python.exists() and (installed := _python_of_ramctl()) is not None:
        python = installed
    if not python.exists():
        sys.exit(f"{problem}: install ramctl, or run scripts/lint once, which sets up .venv")
    if Path(sys.prefix).resolve() == python.parents[1].resolve():
        sys.exit(f"{problem}: {python.parent}/pip install 'ramctl[train,mini,caption,bench]'")
    os.execv(python, [str(python), *sys.argv])


def _python_of_ramctl() -> Path | None:
    """The Python in the first line of the installed command `ramctl`."""
    command = shutil.which("ramctl")
    if command is None:
        return None
    first = Path(command).read_bytes().partition(b"\n")[0]
    python = Path(os.fsdecode(first.removeprefix(b"#!").strip()))
    return python if python.name.startswith("python") and python.is_file() else None
