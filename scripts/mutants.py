#!/usr/bin/env python3
"""Put small faults into the package, one at a time, and see whether its tests notice.

    scripts/mutants.py [PACKAGE...] [--number N | --total N] [--seed S] [--timeout S] [--list]

The faults are drawn from a seed, at most one a line: operators swapped, constants changed,
statements and arguments dropped, conditions forced. Each is put into a copy of the checkout,
where the tests of its package run until one fails, those that import the module first.
A fault that takes longer than --timeout counts as noticed. Exit code 1: more than a fifth
survived, or a test that noticed a fault fails without it too.
"""

import argparse
import ast
import copy
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.2  # share that may survive
NO_TESTS = 5  # pytest's exit code
OUTCOMES = ("killed", "survived", "timeout")
FAILED = re.compile(r"^(?:FAILED|ERROR) ([^\s\[]+)", re.MULTILINE)  # in what pytest prints
# Imported once, so that a test run that is forked off starts in a tenth of a second.
PRELOADED = ("pytest", "numpy", "scipy.sparse", "sklearn.metrics", "torch", "spacy", "hypothesis")
# Tests of a package beside those in the folder of its name; "ramctl" is the modules in no folder.
MORE_TESTS = {
    "ramctl": ("contract", "docs", "ray_engine", "test_labels.py", "parity/test_convert.py"),
    "checkpoints": ("inference", "parity"),
    "commands": ("contract", "docs", "tagging/test_tag_command.py", "parsing/test_command.py"),
    "data_engine": ("contract/test_records.py", "faults/test_crashes.py"),
    "inference": ("tagging", "data_engine/test_additions.py"),
    "model": ("parity", "checkpoints", "training/test_objective.py"),
    "pages": ("evaluation/test_eval_command.py",),
    "photos": ("faults/test_readers.py", "fuzz"),
    "readers": ("faults/test_readers.py", "fuzz"),
    "records": ("faults", "contract"),
    "tagging": ("inference", "contract/test_commands.py"),
    "training": ("parity",),
}
PAIRS: list[tuple[type[ast.AST], type[ast.AST]]] = [
    (ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.In, ast.NotIn),
    (ast.Is, ast.IsNot), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div),
    (ast.BitAnd, ast.BitOr), (ast.LShift, ast.RShift),
]  # fmt: skip
SWAPPED = dict([*PAIRS, *(pair[::-1] for pair in PAIRS)])
SWAPPED |= {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult}
DROPPED = (ast.Break, ast.Continue, ast.Raise, ast.AugAssign)
UNTOUCHED = ("annotation", "returns", "decorator_list")
# Calls and arguments whose strings are for people, and calls that only log.
SPEAKS = re.compile(r"(Problem|Error|Exception|Exit)$|^(notify|warn|note|progress|help|metavar)$")
LOGS = re.compile(r"(log|logging|logger)\b")


@dataclass(frozen=True, order=True)
class Mutant:
    """One fault: in line `line` of `path`, the bytes from `start` to `end` become `new`."""

    path: Path
    line: int
    start: int
    end: int
    new: bytes

    def applied(self, source: bytes) -> bytes:
        """The source with the fault, on as many lines."""
        return source[: self.start] + self.new + source[self.end :]

    def is_valid(self, source: bytes) -> bool:
        """Whether the source is still a program with it, and another one."""
        with suppress(SyntaxError):
            return ast.dump(ast.parse(self.applied(source))) != ast.dump(ast.parse(source))
        return False

    def described(self, source: bytes) -> str:
        """Its place, and the line before and after."""
        lines = (text.split(b"\n")[self.line - 1] for text in (source, self.applied(source)))
        before, after = (line.decode().strip() for line in lines)
        return f"{self.path}:{self.line}\n    - {before}\n    + {after}"


def mutants_of(path: Path, source: bytes) -> Iterator[Mutant]:
    """The faults that this source can have."""
    lines = source.split(b"\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for node, changed in _changes(ast.parse(source)):
        if b"pragma: no mutate" in lines[node.lineno - 1]:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        with suppress(ValueError):  # f-strings that Python 3.11 cannot write
            new = ast.unparse(changed).encode()
            missing = b"\n" * (source.count(b"\n", start, end) - new.count(b"\n"))
            if missing or not isinstance(changed, ast.Constant | ast.stmt):
                new = new + missing if isinstance(changed, ast.stmt) else b"(%s%s)" % (new, missing)
            yield Mutant(path, node.lineno, start, end, new)


def _changes(node: Any, is_text: bool = False) -> Iterator[tuple[Any, ast.AST]]:
    """The nodes from `node` down, each with one to put in its place."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.FunctionDef(name="__repr__"):
            return
        case ast.If(test=test) if "TYPE_CHECKING" in ast.unparse(test):
            return
        case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("__"):
            return
        case ast.Expr(value=ast.Call(func=called)) if LOGS.match(ast.unparse(called)):
            return
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) | ast.keyword(arg=name):
            is_text = is_text or bool(name and SPEAKS.search(name))
    yield from _changed_operators(node)
    yield from _changed_statements(node)
    yield from _changed_values(node, is_text)
    if not isinstance(node, ast.JoinedStr):  # Python 3.11 misplaces what is in it
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and field not in UNTOUCHED:
                    yield from _changes(child, is_text)


def _with(node: ast.AST, **fields: Any) -> ast.AST:
    changed = copy.copy(node)
    vars(changed).update(fields)
    return changed


def _changed_operators(node: Any) -> Iterator[tuple[Any, ast.AST]]:
    match node:
        case ast.Compare(ops=ops):
            for at, operator in enumerate(ops):
                swapped = [*ops[:at], SWAPPED[type(operator)](), *ops[at + 1 :]]
                yield node, _with(node, ops=swapped)
        case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(node.op) in SWAPPED:
            yield node, _with(node, op=SWAPPED[type(node.op)]())
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, operand


def _changed_statements(node: Any) -> Iterator[tuple[Any, ast.AST]]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, ast.Pass()
        case ast.stmt() if isinstance(node, DROPPED):
            yield node, ast.Pass()
        case ast.Return(value=ast.expr() as value):
            yield value, ast.Constant(None)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.comprehension(ifs=[test, *_]):
            yield test, ast.Constant(True)
            yield test, ast.Constant(False)
        case ast.While(test=test):  # always true, it would only be waited for
            yield test, ast.Constant(False)
        case ast.Call(keywords=keywords):
            for keyword in keywords:
                if keyword.arg:
                    yield node, _with(node, keywords=[k for k in keywords if k is not keyword])


def _changed_values(node: Any, is_text: bool) -> Iterator[tuple[Any, ast.AST]]:
    match node:
        case ast.Constant(value=bool() as value):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield node, ast.Constant(value + 1)
            if value == 1:
                yield node, ast.Constant(0)
        case ast.Constant(value=str() as value) if not is_text:
            yield node, ast.Constant("" if value else "mutant")
        case ast.JoinedStr() if not is_text:
            yield node, ast.Constant("")
        case ast.Slice(lower=lower, upper=upper):
            for end, operator in ((lower, ast.Add()), (upper, ast.Sub())):
                if end and not isinstance(end, ast.Constant):
                    yield end, ast.BinOp(end, operator, ast.Constant(1))


def package_of(path: Path) -> str:
    """The folder below ramctl/ that the file is in, "ramctl" if none."""
    return path.parts[1] if len(path.parts) > 2 else path.parts[0]


def draw(packages: list[str], number: int, total: int, seed: int) -> list[Mutant]:
    """`number` mutants of each package, or `total` over all; the same ones for the same seed."""
    lines: dict[str, dict[tuple[Path, int], list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    paths = [path.relative_to(ROOT) for path in sorted(ROOT.glob("ramctl/**/*.py"))]
    paths = [path for path in paths if not packages or package_of(path) in packages]
    sources = {path: (ROOT / path).read_bytes() for path in paths}
    for path, source in sources.items():
        for mutant in mutants_of(path, source):
            lines["" if total else package_of(path)][path, mutant.line].append(mutant)
    drawn: list[Mutant] = []
    for package, of_lines in lines.items():
        dice = random.Random(f"{seed} {package}")
        found = 0
        for of_line in dice.sample(list(of_lines.values()), len(of_lines)):
            shuffled = dice.sample(of_line, len(of_line))
            valid = [mutant for mutant in shuffled if mutant.is_valid(sources[mutant.path])][:1]
            drawn, found = drawn + valid, found + len(valid)
            if found == (total or number):
                break
    return sorted(drawn)


def tests_of(path: Path) -> list[str]:
    """All tests that import the module, then those of its package, that name it or do not."""
    places = (package_of(path), *MORE_TESTS.get(package_of(path), ()))
    package, name = ".".join(path.parts[:-1]), path.stem
    imports = re.compile(rf"{package}(\.| import ([\w, ]*\b)?){name}\b")
    distances: dict[str, tuple[int, ...]] = {}
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text, test = file.read_text("utf-8"), file.relative_to(ROOT)
        near = [at for at, place in enumerate(places) if test.is_relative_to(Path("tests", place))]
        if file.stem == f"test_{name}" or imports.search(text):
            distances[str(test)] = 0, *near, len(places)
        elif near:
            distances[str(test)] = 1 if re.search(rf"\b{name}\b", text) else 2, *near
    return sorted(distances, key=distances.__getitem__)


def run_tests(checkout: Path, tests: list[str], timeout: int) -> str:
    """Test one fault: "survived", "killed" or "timeout"; in a forked process."""
    child = os.fork()
    if child == 0:
        os.setsid()  # so that commands that the tests started are ended with it
        os.chdir(checkout)
        sys.path.insert(0, str(checkout))
        quiet = os.open(f"{checkout}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.alarm(timeout)
        import pytest

        plugins = ["-p", "no:cacheprovider", "-p", "no:randomly"]
        os._exit(pytest.main(["-x", "-q", *plugins, f"--basetemp={checkout}.tests", *tests]))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if status == -signal.SIGALRM:
        return "timeout"
    return "survived" if status in (0, NO_TESTS) else "killed"


def try_out(mutants: list[Mutant], timeout: int) -> Iterator[tuple[Mutant, str]]:
    """Each mutant and what became of it."""
    sound: set[str] = set()  # tests that pass without a fault
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        for mutant in mutants:
            tests = tests_of(mutant.path)
            source = (checkout / mutant.path).read_bytes()
            (checkout / mutant.path).write_bytes(mutant.applied(source))
            for which in ("not slow", "slow"):
                outcome = run_tests(checkout, ["-m", which, *tests], timeout)
                if outcome != "survived":
                    break
            (checkout / mutant.path).write_bytes(source)
            output = Path(f"{checkout}.txt").read_text("utf-8", "replace")
            failed = set(FAILED.findall(output) or tests[:1]) - sound
            if outcome == "killed" and failed:
                if run_tests(checkout, sorted(failed), timeout) != "survived":
                    raise SystemExit(f"fails without any fault: {' '.join(sorted(failed))}")
                sound |= failed
            yield mutant, outcome


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="[default: all]")
    parser.add_argument("--number", type=int, default=10, help="mutants of each package")
    parser.add_argument("--total", type=int, default=0, help="mutants over all packages instead")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=int, default=900, help="seconds for the tests of one")
    parser.add_argument("--list", action="store_true", help="show what is drawn, and try nothing")
    options = parser.parse_args()
    drawn = draw(options.packages, options.number, options.total, options.seed)
    if unknown := set(options.packages) - {package_of(mutant.path) for mutant in drawn}:
        parser.error(f"nothing to change in {', '.join(sorted(unknown))}")
    if options.list:
        for mutant in drawn:
            print(mutant.described((ROOT / mutant.path).read_bytes()))
        return 0
    os.environ["PYTHONDONTWRITEBYTECODE"] = os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("RAMCTL_SHARED", str(ROOT.parent / "shared"))
    sys.dont_write_bytecode = True
    for name in PRELOADED:
        import_module(name)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for mutant, outcome in try_out(drawn, options.timeout):
        counts[package_of(mutant.path)][outcome] += 1
        if outcome != "killed":
            shown = mutant.described((ROOT / mutant.path).read_bytes())
            print(f"{outcome}: {shown}", flush=True)
    for package, count in counts.items():
        print(f"{package}: {', '.join(f'{count[what]} {what}' for what in OUTCOMES)}")
    survived = sum(count["survived"] for count in counts.values())
    print(f"all: {survived} of {len(drawn)} survived ({survived / len(drawn):.0%})")
    return int(survived > LIMIT * len(drawn))


if __name__ == "__main__":
    sys.exit(main())
