#!/usr/bin/env python3
"""`ramctl serve` under load: how long many clients wait, beside `ramctl tag` on the same photos.

    scripts/bench/serve.py PHOTOS... [--clients 50] [--seconds 30]

Each client sends the next photo when it has its answer, over a connection that it keeps. One that
is told to come again (503) waits as long as it is told.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Thread

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()
PATIENCE_S = 120


def wait_until_ready(port: int) -> None:
    """Return when the server answers; RuntimeError when it does not within a minute."""
    for _ in range(600):
        try:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            line.request("GET", "/healthz")
            line.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server does not answer")


def ask(
    port: int, photos: Sequence[bytes], end: float, waits: list[float], told: Counter[int]
) -> None:
    """One client: photos in turn until the time `end`; each answer's seconds go to `waits`."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for number in count():
        start = time.monotonic()
        if start > end:
            return
        status = 503
        while status == 503:
            line.request("POST", "/tag", photos[number % len(photos)])
            answer = line.getresponse()
            answer.read()
            status = answer.status
            told[status] += 1
            if status == 503:
                time.sleep(float(answer.headers.get("retry-after", 1)))
        waits.append(time.monotonic() - start)


def seconds_of_tag(photos: Sequence[Path]) -> float:
    """Of all photos but the first, without the start of the process."""

    def taken(some: Sequence[Path]) -> float:
        start = time.monotonic()
        words = [sys.executable, "-m", "ramctl", "tag", "-q", *map(str, some)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - start

    return taken(photos) - taken(photos[:1])


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in options.photos]
    tagged = seconds_of_tag(options.photos)
    server = subprocess.Popen(
        [sys.executable, "-m", "ramctl", "serve", "-q", "--port", str(options.port)],
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(options.port)
        waits: list[float] = []
        told: Counter[int] = Counter()
        start = time.monotonic()
        asked = (options.port, photos, start + options.seconds, waits, told)
        clients = [Thread(target=ask, args=asked) for _ in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        seconds = time.monotonic() - start
    finally:
        server.terminate()
        server.wait()
    cuts = statistics.quantiles(waits, n=100)
    print(json.dumps({
        "clients": options.clients, "answers": len(waits), "refused": told[503],
        "photos a second": round(len(waits) / seconds, 1),
        "photos a second of tag": round(len(photos[1:]) / tagged, 1),
        "p50 s": round(cuts[49], 3), "p99 s": round(cuts[98], 3),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
