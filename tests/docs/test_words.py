"""Plain words: helps, documents, messages and names use the field's terms, not a dialect."""

import ast
import re
from collections.abc import Iterator

from click.testing import CliRunner

from ramctl.cli import COMMANDS, cli
from tests.conftest import REPOSITORY
from tests.docs.test_links import by_name, documents

# A word, and what to write in its place.
WORDS = {
    "chance": "probability",
    "share of": "fraction of",
    "a share": "a fraction",
    "say": "print, report, write",
    "says": "prints, reports, writes",
    "said": "printed, reported, written",
    "tell": "show, distinguish",
    "tells": "shows, distinguishes",
    "told": "shown, reported",
    "by its own account": "estimated",
    "what it is of": "subject",
    "silence": "no mention",
    "belief": "probability",
    "doing": "action",
    "likeliest": "most probable",
    "word pieces": "tokens",
}
FORBIDDEN = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)
CODE = re.compile(r"```.*?```|`[^`\n]*`|<!-- .*? -->|\]\([^)]*\)", re.DOTALL)
NAMES = re.compile(
    r"^_?of_|^_?(MOST|LEAST|FEWEST)_|(^|_)(chances?|told|said|seen)(_|$)|^(asked|named|one|some|wanted)$"
)
NOT_OURS = {"CHANGELOG.md", "ramctl/checkpoints/bundles/mini/README.md"}
MODULES = sorted((REPOSITORY / "ramctl").rglob("*.py"))


def assert_plain(text: str, place: str) -> None:
    found = {word.lower() for word in FORBIDDEN.findall(text)}
    assert not found, f"{place}: " + ", ".join(f"{word} -> {WORDS[word]}" for word in found)


def test_helps_are_in_plain_words():
    for words in ([], *([command] for command in COMMANDS)):
        assert_plain(CliRunner().invoke(cli, [*words, "--help"]).output, f"ramctl {words}")


def test_documents_are_in_plain_words():
    for path in documents():
        if by_name(path) not in NOT_OURS:
            assert_plain(CODE.sub("", path.read_text("utf-8")), by_name(path))


def strings(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def is_message(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return name.endswith(("Problem", "Interrupted")) or name in ("notify", "warn", "UsageError")


def test_messages_are_in_plain_words():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if is_message(node):
                assert_plain(" ".join(strings(node)), f"{by_name(path)}:{node.lineno}")


def test_docstrings_name_a_thing_or_an_act():
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                place = f"{by_name(path)}: {text.splitlines()[0]}"
                assert not text.startswith("What "), place


def test_names_are_the_field_s():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword):  # a library may have named it
                continue
            for attribute in ("id", "arg", "attr", "name"):
                name = getattr(node, attribute, None)
                assert not (isinstance(name, str) and NAMES.search(name)), f"{path}: {name}"
