"""The rooms of the package: what may import what, and what stays light."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "ramctl"
ORDER = [
    {"cli", "commands", "__main__"},
    {"scale"},
    {"data_engine", "training"},
    {"tagging", "evaluation", "parsing"},
    {"model", "bundle"},
    {"labels"},
    {"io", "report", "errors", "config", "progress", "about"},
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
SAME_ROOM = {("model", "bundle"), ("cli", "commands"), ("__main__", "cli")}
HEAVY = {"torch", "torchvision", "timm", "transformers", "spacy", "sklearn", "groundingdino"}
LIGHT = ["cli.py", "about.py", "errors.py", "config.py", "progress.py", "report.py", "__init__.py"]
LIGHT += ["labels.py", "bundle.py", "commands", "io"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, top_only: bool = False):
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_the_rooms_to_its_right(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ramctl" or len(parts) == 1 or room == "__init__":
            continue
        other = parts[1]
        allowed = room == other or (room, other) in SAME_ROOM or LEVEL[other] > LEVEL[room]
        allowed = allowed or LEVEL[room] == LEVEL[other] == len(ORDER) - 1
        assert allowed, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("place", LIGHT)
def test_light_modules_import_nothing_heavy_at_their_top(place):
    root = PACKAGE / place
    for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
        heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
        assert not heavy, f"{path.relative_to(PACKAGE)} imports {heavy}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_idea(path):
    assert path.read_text("utf-8").count("\n") <= 400
