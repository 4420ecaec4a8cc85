"""The border between the parser and the language that it reads."""

import ast
from pathlib import Path

import pytest

from ramctl.parsing.language import open_language

ROOM = Path(__file__).resolve().parents[2] / "ramctl" / "parsing"
GENERAL = ["captions", "closed_mode", "language", "parser", "rule_table", "run", "stage"]


@pytest.mark.parametrize("name", GENERAL)
def test_general_code_imports_no_language_when_it_is_loaded(name):
    tree = ast.parse((ROOM / f"{name}.py").read_text("utf-8"))
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any(module.startswith("ramctl.parsing.english") for module in imported)


def test_the_pack_is_opened_once():
    assert open_language() is open_language()
