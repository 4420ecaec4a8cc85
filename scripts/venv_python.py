"""Lets a script start under any Python: it goes on in the project's own environment."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
CORE = ("click", "ijson", "onnxruntime", "simplejpeg")  # who has these has all that ramctl needs


def use_venv(*modules: str) -> None:
    """Imports come from this checkout, and from its .venv where the running Python lacks some.

    `modules` are those that the extras bring. Ends the program with a line where .venv lacks them
    too.
    """
    sys.path.insert(0, str(ROOT))
    missing = [name for name in (*CORE, *modules) if find_spec(name) is None]
    if not missing:
        return
    python = VENV / "bin" / "python"
    problem = f"{Path(sys.argv[0]).name}: needs {', '.join(missing)}"
    if not python.exists():
        sys.exit(f"{problem}: run scripts/lint once, which sets up .venv")
    if Path(sys.prefix).resolve() == VENV.resolve():
        sys.exit(f"{problem}: .venv/bin/pip install -e '.[train,mini,caption,bench]'")
    os.execv(python, [str(python), *sys.argv])
