"""The rooms of the package: what may import what, what stays light, and that nothing goes round."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "ramctl"
ORDER = [  # data goes down the house, imports go up it
    "errors", "records", "photos", "metadata", "captions", "parsing", "model", "checkpoints",
    "inference", "evaluation", "training", "data_engine", "apps", "commands", "cli", "__main__",
]  # fmt: skip
HEAVY = {"torch", "torchvision", "timm", "transformers", "spacy", "sklearn"}
LIGHT = [
    "cli.py", "errors.py", "__init__.py", "commands", "records", "photos", "metadata", "captions",
    "checkpoints/bundle.py",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, top_only: bool = False):
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_modules_import_what_is_there_and_only_from_the_rooms_below_their_own():
    names = {module_name(module) for module in MODULES}  # the type checker passes over others
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "ramctl" and len(parts) > 1 and room != "__init__":
                is_below = ORDER.index(parts[1]) <= ORDER.index(room)
                assert is_below and name in names, f"{path.relative_to(PACKAGE)} imports {name}"


def test_no_imports_go_round():
    names = {module_name(path) for path in MODULES}
    graph = {
        module_name(path): {name for name in imports(path) if name in names}
        for path in MODULES
        if module_name(path) != "ramctl"
    }
    done, under_way = set(), []

    def visit(name):
        assert name not in under_way, " -> ".join([*under_way[under_way.index(name) :], name])
        if name in done or name not in graph:
            return
        under_way.append(name)
        for other in sorted(graph[name] - {name}):
            visit(other)
        under_way.pop()
        done.add(name)

    for name in sorted(graph):
        visit(name)


def test_light_modules_import_nothing_heavy_at_their_top():
    roots = [PACKAGE / place for place in LIGHT]
    for path in [path for root in roots for path in (root, *root.rglob("*.py")) if path.is_file()]:
        heavy = {name.split(".")[0] for name in imports(path, top_only=True)} & HEAVY
        assert not heavy, f"{path.relative_to(PACKAGE)} imports {heavy}"


def test_a_module_is_one_idea():
    long = [path.name for path in MODULES if path.read_text("utf-8").count("\n") > 500]
    assert long == []


def test_a_module_s_name_says_which_one_it_is():
    # A command has the name of the module that it calls.
    paths = [path for path in MODULES if path.parent.name != "commands"]
    names = [path.name for path in paths if path.name != "__init__.py"]
    assert sorted(set(names)) == sorted(names)
