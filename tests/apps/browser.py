"""A real browser for the tests of pages: Chromium without a window, driven by its own protocol."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, PROGRAMS)), None)
PATIENCE_S = 40


class Browser:
    """One tab. Commands and answers go through pipes, so that no port is taken."""

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()

        def hand_over() -> None:
            # The protocol asks for the descriptors 3 and 4; copies keep one from closing the other.
            copies = os.dup(commands), os.dup(answers)
            os.dup2(copies[0], 3)
            os.dup2(copies[1], 4)

        self._process = subprocess.Popen(
            [
                PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-dev-shm-usage", "--remote-debugging-pipe",
                f"--user-data-dir={profile}", "about:blank",
            ],
            preexec_fn=hand_over, close_fds=False, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._number, self._rest, self._session, self._own = 0, b"", {}, {}

    def renew(self) -> None:
        """Go on in another tab that knows nothing of those before."""
        self._session = {}
        if self._own:
            self.do("Target.disposeBrowserContext", **self._own)  # with its tabs
        self._own = self.do("Target.createBrowserContext")
        tab = self.do("Target.createTarget", url="about:blank", **self._own)
        attached = self.do("Target.attachToTarget", **tab, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def do(self, method: str, **parameters) -> dict:
        """The answer to a command."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                more = os.read(self._answers, 1 << 16)
                assert more, "the browser has ended"
                self._rest += more
            message, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(message)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page: Path | str) -> None:
        """Load a page from a file, or an address."""
        url = page if isinstance(page, str) else page.as_uri()
        self.do("Page.navigate", url=url)
        here = f"location.href === {json.dumps(url)}"
        self.wait(f"{here} && document.readyState === 'complete'")

    def value(self, expression: str):
        """What a JavaScript expression gives."""
        done = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, expression: str) -> None:
        """Return when the expression is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def part(self, of: str, at: str) -> list[float]:
        """Where an element is in another one: left, top, right and bottom as shares of that."""
        shares = """((of, at) => [(at.left - of.left) / of.width, (at.top - of.top) / of.height,
            (at.right - of.left) / of.width, (at.bottom - of.top) / of.height])"""
        places = [f"document.querySelector('{one}').getBoundingClientRect()" for one in (of, at)]
        return self.value(f"{shares}({', '.join(places)})")

    def look(self, width: int) -> None:
        """Show the page at another width of the window."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
