"""The faults that scripts/mutants.py puts into the package, and whether it sees them noticed."""

import ast
import os
import shutil
import sys
from pathlib import Path

import mutants
import pytest

from tests.conftest import REPOSITORY
from tests.support import captured

WITHOUT_PRELOADING = "import mutants; mutants.PRELOADED = (); raise SystemExit(mutants.main())"


def changed(source: str) -> set[str]:
    found = [m.applied(source.encode()) for m in mutants.mutants_of(Path("f.py"), source.encode())]
    return {ast.unparse(ast.parse(text)) for text in found}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"a <= b"}),
        ("a == b is c", {"a != b is c", "a == b is not c"}),
        ("a and b", {"a or b"}),
        ("a = not b", {"a = b"}),
        ("a // b", {"a * b"}),
        ("a += b", {"a -= b", "pass"}),
        ("a = 1", {"a = 2", "a = 0"}),
        ("a = True", {"a = False"}),
        ("a = 'b'", {"a = ''"}),
        ("a = f'{b}'", {"a = ''"}),
        ("f(a, b=c)", {"f(a)", "pass"}),
        ("a.b = c", {"pass"}),
        ("while a:\n    break", {"while False:\n    break", "while a:\n    pass"}),
        ("a if b else c", {"a if True else c", "a if False else c"}),
        ("a[b:]", {"a[b + 1:]"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
        ("raise KeyError('a')", {"pass"}),
        ("report.notify(f'{a}' + 'b')", {"report.notify(f'{a}' - 'b')", "pass"}),
        ("'''What it is.'''", set()),
        ("def f(a: 'b') -> 'c': ...", set()),
        ("if TYPE_CHECKING:\n    a = 1", set()),
        ("def __repr__(self):\n    return 'a'", set()),
        ("log(a)\nlogging.info('b')", set()),
        ("a = 1  # pragma: no mutate", set()),
    ],
)
def test_what_is_changed(source, expected):
    assert changed(source) == expected


def test_drawn_mutants_are_other_programs_of_as_many_lines_and_the_same_for_one_seed():
    drawn = mutants.draw(["photos"], 20, 0, seed=1)
    assert drawn == mutants.draw(["photos"], 20, 0, seed=1)
    assert drawn != mutants.draw(["photos"], 20, 0, seed=2)
    assert len({(mutant.path, mutant.line) for mutant in drawn}) == 20
    for mutant in drawn:
        source = (REPOSITORY / mutant.path).read_bytes()
        text = mutant.applied(source)
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse(source))
        assert text.count(b"\n") == source.count(b"\n")


def test_tests_that_import_the_module_come_before_the_others_of_its_package():
    tests = mutants.tests_of(Path("ramctl/photos/archives.py"))
    places = [tests.index(f"tests/photos/test_{name}.py") for name in ("tar_index", "raw")]
    assert places == sorted(places)


@pytest.fixture
def tiny(tmp_path):
    """Runs the script in a checkout whose only package has one function that nothing tests."""
    for folder in ("scripts", "ramctl/tiny", "tests/tiny"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(mutants.__file__, tmp_path / "scripts")
    (tmp_path / "ramctl" / "tiny" / "sums.py").write_text(
        "def total(a, b):\n    return a + b\n\n\ndef difference(a, b):\n    return a - b\n"
    )

    def run(test: str):
        text = f"from ramctl.tiny.sums import total\n\ndef test_total():\n    assert {test}\n"
        (tmp_path / "tests" / "tiny" / "test_sums.py").write_text(text)
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "scripts")}
        return captured([sys.executable, "-c", WITHOUT_PRELOADING, "tiny"], env=environment)

    return run


@pytest.mark.slow
def test_a_fault_that_a_test_notices_is_counted_and_another_reported(tiny):
    done = tiny("total(2, 3) == 5")
    first, before, _, *counts = done.stdout.splitlines()
    assert first == "survived: ramctl/tiny/sums.py:6"
    assert before.strip() == "- return a - b"
    assert counts == ["tiny: 1 killed, 1 survived, 0 timeout", "all: 1 of 2 survived (50%)"]
    assert done.returncode == 1


@pytest.mark.slow
def test_a_test_that_fails_without_any_fault_is_an_error(tiny):
    done = tiny("total(2, 3) == 6")
    assert done.returncode == 1
    assert "fails without any fault: tests/tiny/test_sums.py::test_total" in done.stderr


def test_tests_that_do_not_end_are_stopped(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_it():\n    while True:\n        pass\n")
    assert mutants.run_tests(tmp_path, ["test_it.py"], timeout=2) == "timeout"
