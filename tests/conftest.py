"""Fixtures for all tests: the shared data, and a way to run the real command."""

import os
import random
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from tests import forked
from tests.apps import browser as real_browser
from tests.command import Ramctl
from tests.forked import REPOSITORY

SHARED = Path(os.environ.get("RAMCTL_SHARED", REPOSITORY.parent / "shared")).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the shared data where it is not there; RAMCTL_ORDER=1 is another order."""
    if seed := os.environ.get("RAMCTL_ORDER"):
        random.Random(seed).shuffle(items)
    if (SHARED / "design.md").is_file():
        return
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"needs the shared data ({SHARED})"))


# Where RAMCTL_REQUIRE_SHARED is set, as in continuous integration, nothing skips but for a program
# or a right that the machine may lack, and the tests of the night. Extras are all installed there.
MAY_SKIP = re.compile(r"needs (?!the extra|Ray|pyarrow)|RAMCTL_LONG|no compiler|without AVIF")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Let a test fail that skips although what it needs should be there."""
    report = yield
    required = os.environ.get("RAMCTL_REQUIRE_SHARED") and (SHARED / "design.md").is_file()
    is_skip = report.skipped and not hasattr(report, "wasxfail")  # pytest calls both skipped
    if required and is_skip and not MAY_SKIP.search(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Start, for all workers, what commands are forked from."""
    if not hasattr(config, "workerinput"):
        forked.start(Path(tempfile.mkdtemp(prefix="forkers-")))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        forked.close()
        shutil.rmtree(os.environ[forked.PLACE])


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared photos, captions and fixtures."""
    return SHARED


@pytest.fixture
def ramctl(tmp_path: Path) -> Ramctl:
    """Runs the command below `tmp_path`: called, in this process; `.process`, in one of its own."""
    return Ramctl(tmp_path)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights of the real architecture, made once."""
    from tests.support import write_tiny_bundle

    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def captioner():
    """A server of the captions of tests/data, which the environment names to `ramctl caption`."""
    from tests.captions.recorded_server import RecordedServer, of_test_photos

    server = RecordedServer(of_test_photos())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.url)
        yield server
    server.stop()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """A real browser; starting one takes a second."""
    if real_browser.PROGRAM is None:
        pytest.skip(f"needs one of {', '.join(real_browser.PROGRAMS)}")
    started = real_browser.Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@pytest.fixture
def browser(chromium):
    """A real browser with an empty tab."""
    chromium.renew()
    return chromium
