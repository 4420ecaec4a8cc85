"""The border between the parser and the language that it reads."""

import ast
import json

import pytest

from ramctl.parsing.language import open_language
from tests.conftest import REPOSITORY

ROOM = REPOSITORY / "ramctl" / "parsing"
GENERAL = ["captions", "closed_mode", "language", "parser", "rule_table", "run", "stage"]
GOLD = {"english": "parse_gold.jsonl"}  # captions with their tags, by language pack


@pytest.mark.parametrize("name", GENERAL)
def test_general_code_imports_no_language_when_it_is_loaded(name):
    tree = ast.parse((ROOM / f"{name}.py").read_text("utf-8"))
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith("ramctl.parsing.english") for module in imported)


def test_the_pack_is_opened_once():
    assert open_language() is open_language()


def test_each_pack_has_captions_of_its_own():
    packs = {
        path.parent.name
        for path in ROOM.glob("*/__init__.py")
        if "open_pack" in path.read_text("utf-8")
    }
    assert packs == set(GOLD)
    seen = set()
    for name in GOLD.values():
        lines = (REPOSITORY / "tests" / "data" / name).read_text("utf-8").splitlines()
        captions = {json.loads(line)["caption"] for line in lines}
        assert len(captions - seen) >= 30
        seen |= captions
