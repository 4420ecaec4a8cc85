#!/usr/bin/env python3
"""Checks that `ramctl tag` needs no more memory for 100,000 photos than for 10,000.

    scripts/bench/memory.py --photos 100000
    scripts/bench/memory.py --photos 20000 --model mini --jobs 2

Also that no photo is lost. Photos are links to 50 real ones; one in a hundred links to a damaged
file. Without --model a tiny bundle with random weights tags them: the stream is measured, not the
network.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from PIL import Image, ImageEnhance  # noqa: E402

MOST_GROWTH_MIB = 30.0
EXIT_REJECTS = 3


def make_links(folder: Path, number: int) -> int:
    """Fill the folder with links; returns how many are broken."""
    sources = sorted((ROOT / "tests" / "data" / "photos").iterdir())
    real = folder / "real"
    real.mkdir()
    for index in range(50):
        photo = Image.open(sources[index % len(sources)]).convert("RGB")
        ImageEnhance.Brightness(photo).enhance(0.6 + index / 60).save(real / f"{index}.jpg")
    (real / "broken.jpg").write_bytes((real / "0.jpg").read_bytes()[:200])
    links = folder / "links"
    links.mkdir()
    for index in range(number):
        name = "broken" if index % 100 == 37 else str(index % 50)
        (links / f"{index:06}.jpg").symlink_to(real / f"{name}.jpg")
    return sum(index % 100 == 37 for index in range(number))


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a running process; with the field VmHWM its peak."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(process: "subprocess.Popen[bytes]", output: Path, number: int) -> list[float]:
    """Memory after each tenth of the photos, by the lines of the unfinished output."""
    readings: list[float] = []
    n_lines, position = 0, 0
    while process.poll() is None:
        time.sleep(0.5)
        if output.exists():
            with output.open("rb") as stream:
                stream.seek(position)
                new = stream.read()
            n_lines, position = n_lines + new.count(b"\n"), position + len(new)
        while len(readings) < 9 and n_lines > (len(readings) + 1) * number // 10:
            readings.append(memory_mib(process.pid))
            print(f"  {n_lines} photos: {readings[-1]:.0f} MiB", flush=True)
    return readings


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--model")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model
        if model is None:
            from tests.support import write_tiny_bundle

            model = str(write_tiny_bundle(folder / "tiny"))
        broken = make_links(folder, given.photos)
        command = [sys.executable, "-m", "ramctl", "tag", "-R", "links", "--model", model]
        command += ["-o", "tags.jsonl", "--rejects", "rejects.jsonl", "-j", str(given.jobs)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=folder, env=environment)
        readings = watch(process, folder / "tags.jsonl.part", given.photos)
        counts = [
            sum(1 for _ in (folder / file).open("rb")) for file in ("tags.jsonl", "rejects.jsonl")
        ]
    growth = max(readings) - readings[0] if readings else float("nan")
    exact = counts == [given.photos - broken, broken] and process.returncode == EXIT_REJECTS
    print(f"{counts[0]} tagged, {counts[1]} rejected, exit {process.returncode}")
    print(f"growth after the first tenth: {growth:.1f} MiB (at most {MOST_GROWTH_MIB:g})")
    return 0 if exact and growth <= MOST_GROWTH_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
