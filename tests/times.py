"""Where the time of a test run goes, by folder: a table below its results."""

import resource
from collections import Counter, defaultdict

import pytest

from tests.forked import Forked

_WALL, _OWN, _CHILDREN = "wall", "own", "children"
_BEFORE = pytest.StashKey[tuple[float, float]]()
_times: defaultdict[str, Counter[str]] = defaultdict(Counter)


def _processor_seconds() -> tuple[float, float]:
    """Of this process, and of its children that have ended, forked commands too."""
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = children.ru_utime + children.ru_stime + Forked.seconds
    return own.ru_utime + own.ru_stime, ended


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember what had been spent before a test."""
    item.stash[_BEFORE] = _processor_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Tell what a test has spent with the last of its reports."""
    report = yield
    if call.when == "teardown" and _BEFORE in item.stash:
        pairs = zip(_processor_seconds(), item.stash[_BEFORE], strict=True)
        spent = [now - then for now, then in pairs]
        report.user_properties = [*report.user_properties, ("seconds", spent)]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the reports tell; with several workers they come together here."""
    times = _times[report.nodeid.split("::")[0].split("/")[1]]
    times[_WALL] += report.duration
    own, children = dict(report.user_properties).get("seconds", (0, 0))
    times[_OWN] += own
    times[_CHILDREN] += children


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, the folder that takes longest first."""
    if not _times:
        return
    line = terminalreporter.write_line
    line(f"{'folder':<14}{'seconds':>9}{'processor':>11}{'of children':>13}")
    total: Counter[str] = Counter()
    for folder, times in sorted(_times.items(), key=lambda pair: -pair[1][_WALL]):
        total.update(times)
        line(_row(folder, times))
    line(_row("all", total))


def _row(name: str, times: Counter[str]) -> str:
    spent = times[_OWN] + times[_CHILDREN]
    share = times[_CHILDREN] / spent if spent else 0
    return f"{name:<14}{times[_WALL]:>9.0f}{spent:>11.0f}{share:>13.0%}"
