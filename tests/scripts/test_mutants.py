"""The faults of scripts/mutants fit the code as it is."""

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def script():
    loader = SourceFileLoader("mutants", str(REPOSITORY / "scripts" / "mutants"))
    module = module_from_spec(spec_from_loader("mutants", loader))
    loader.exec_module(module)
    return module


def test_every_snippet_is_found_once_and_gives_another_program(script):
    mutants = [mutant for part in script.read_mutants().values() for mutant in part]
    assert len(mutants) >= 100
    script.check(mutants)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("b", "c", "occurs 2 times"),
        ("z", "c", "occurs 0 times"),
        ("a = b", "a = (b)", "the same program"),
        ("a = b", "a = ", "not Python"),
    ],
)
def test_a_snippet_that_does_not_fit_is_an_error(script, old, new, reason):
    mutant = script.Mutant("p", "f.py", old, new, "what", ())
    with pytest.raises(script.Misfit, match=reason):
        mutant.applied("a = b\nc = b\n")


def test_the_tests_pass_fail_or_take_too_long(script, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert 1 + 1 == 2\n")
    assert script.run_tests(tmp_path, ("test_it.py",), 60) == 0
    (tmp_path / "test_it.py").write_text("def test_it():\n    assert 1 - 1 == 2\n")
    assert script.run_tests(tmp_path, ("test_it.py",), 60) == script.TEST_FAILED
    (tmp_path / "test_it.py").write_text("def test_it():\n    while True:\n        pass\n")
    assert script.run_tests(tmp_path, ("test_it.py",), 2) == script.TEST_FAILED
