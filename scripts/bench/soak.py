#!/usr/bin/env python3
"""That long runs need no more memory and descriptors as they go on, and account for every record.

    scripts/bench/soak.py parse --records 1000000 ../shared/data/text/*.jsonl.gz
    scripts/bench/soak.py tag --records 200000
    scripts/bench/soak.py engine --records 50000

Real commands in processes of their own: `parse` on captions no two of which are alike, `tag` on
links to photos of which some are damaged, `generate | clean` on records with a field of their own.
Memory and descriptors of all processes are read as the output grows; the slope of a straight line
through the later half is printed. The bundle is tiny, with random weights: the stream is measured,
not the network. Exits with 1 where a record is lost or doubled, or memory grows.
"""

import argparse
import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()

import numpy as np
from PIL import Image, ImageEnhance

from tests.support import TAGS, write_tiny_bundle

MODULE = [sys.executable, "-m", "ramctl"]
READINGS = 40
MAX_GROWTH_MIB = 48.0  # in the later half; allocators settle within it
EXIT_REJECTS = 3


@dataclass
class Readings:
    """A measurement of running processes: records written, resident MiB, open descriptors."""

    rows: list[tuple[int, float, int]] = field(default_factory=list)

    def add(self, records: int, pids: Sequence[int]) -> None:
        """Read the processes and their children now."""
        family = [pid for own in pids for pid in (own, *_children(own))]
        memory = sum(_resident_mib(pid) for pid in family)
        if not all(map(_resident_mib, pids)):  # one has just ended
            return
        descriptors = sum(_descriptors(pid) for pid in family)
        self.rows.append((records, memory, descriptors))
        print(f"  {records:>9,}: {memory:6.0f} MiB, {descriptors} descriptors", flush=True)

    def growth(self) -> tuple[float, float]:
        """MiB and descriptors by which a line through the later half rises from end to end."""
        later = np.array(self.rows[len(self.rows) // 2 :], float)
        if len(later) < 3:
            return 0.0, 0.0
        share = np.linspace(0, 1, len(later))
        memory, descriptors = (float(np.polyfit(share, later[:, c], 1)[0]) for c in (1, 2))
        return memory, descriptors

    def most(self) -> tuple[float, float]:
        """The most MiB and descriptors that were read; 0 where nothing was."""
        memory, descriptors = (max((row[c] for row in self.rows), default=0) for c in (1, 2))
        return memory, descriptors


def _children(pid: int) -> list[int]:
    try:
        own = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, own) for found in (child, *_children(child))]


def _resident_mib(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        return 0.0


def _descriptors(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def watch(processes: Sequence["subprocess.Popen[bytes]"], output: Path, total: int) -> Readings:
    """Read the processes each time that a share of the records has been written."""
    readings, n_lines, position, next_at = Readings(), 0, 0, 0.0
    while any(process.poll() is None for process in processes):
        time.sleep(0.2)
        if output.exists():
            with output.open("rb") as stream:
                stream.seek(position)
                while new := stream.read(1 << 24):
                    n_lines, position = n_lines + new.count(b"\n"), position + len(new)
        if n_lines > next_at:
            readings.add(n_lines, [process.pid for process in processes])
            next_at = n_lines + total / READINGS
    return readings


def start(command: list[str], folder: Path, **options: Any) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*MODULE, *command], cwd=folder, env=environment, **options)


def soak_parse(folder: Path, given: argparse.Namespace) -> tuple[Readings, list[str]]:
    """Captions of the files again and again, each with another number behind it."""
    captions = [text for path in given.files for text in _captions(path)] or ["A dog on a lawn ."]

    with (folder / "in.jsonl").open("w", encoding="utf-8") as stream:
        texts = itertools.islice(itertools.cycle(captions), given.records)
        for number, text in enumerate(texts):
            row = {"image": f"{number}.jpg", "captions": [f"{text} {number}"]}
            stream.write(json.dumps(row) + "\n")
    process = start(["parse", "-q", "in.jsonl", "-o", "out.jsonl"], folder)
    readings = watch([process], folder / "out.jsonl.part", given.records)
    names = (row["image"] for row in _rows(folder / "out.jsonl"))
    return readings, [*_exits(process, 0), *_accounted(names, given.records, "{}.jpg".format)]


def _captions(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open() as lines:
        for line in lines:
            yield from json.loads(line)["captions"]


def soak_tag(folder: Path, given: argparse.Namespace) -> tuple[Readings, list[str]]:
    """Links to fifty photos; one in a hundred to a damaged file."""
    sources = sorted((ROOT / "tests" / "data" / "photos").iterdir())
    broken = {index for index in range(given.records) if index % 100 == 37}

    real, links = folder / "real", folder / "links"
    real.mkdir()
    for index in range(50):
        photo = Image.open(sources[index % len(sources)]).convert("RGB")
        ImageEnhance.Brightness(photo).enhance(0.6 + index / 60).save(real / f"{index}.jpg")
    (real / "broken.jpg").write_bytes((real / "0.jpg").read_bytes()[:200])
    links.mkdir()
    for index in range(given.records):
        name = "broken" if index in broken else str(index % 50)
        (links / f"{index:08}.jpg").symlink_to(real / f"{name}.jpg")
    command = ["tag", "-q", "-R", "links", "--model", model_of(folder, given), "-o", "out.jsonl"]
    command += ["--rejects", "rejects.jsonl", "-j", "2"]
    process = start(command, folder)
    readings = watch([process], folder / "out.jsonl.part", given.records)
    good = [index for index in range(given.records) if index not in broken]
    names = (row["image"] for row in _rows(folder / "out.jsonl"))
    problems = _accounted(names, len(good), lambda place: f"links/{good[place]:08}.jpg")
    rejected = sum(1 for _ in _rows(folder / "rejects.jsonl")) if broken else 0
    if rejected != len(broken):
        problems.append(f"{rejected} rejects for {len(broken)} damaged photos")
    problems += _exits(process, EXIT_REJECTS if broken else 0)
    return readings, problems or _resumed(command, folder)


def _resumed(command: list[str], folder: Path) -> list[str]:
    """How long a resume of a finished run takes, and what is wrong with it."""
    before = (folder / "out.jsonl").read_bytes()
    began, used = time.monotonic(), os.times()
    again = start([*command, "--resume"], folder)
    code, now = again.wait(), os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    taken = f"{time.monotonic() - began:.1f} s, {cpu:.1f} s of CPU"
    print(f"  the same again with --resume: {taken}, exit code {code}")
    same = (folder / "out.jsonl").read_bytes() == before
    return [] if same else ["a resume of the finished run changed the output"]


def soak_engine(folder: Path, given: argparse.Namespace) -> tuple[Readings, list[str]]:
    """`generate | clean` on records with two thirds of the labels as tags."""
    photos = sorted((ROOT / "tests" / "data" / "photos").glob("*.jpg"))

    with (folder / "in.jsonl").open("w", encoding="utf-8") as stream:
        for index in range(given.records):
            tags = [tag for place, tag in enumerate(TAGS) if (index + place) % 3]
            row = {
                "image": str(photos[index % len(photos)]), "tags": tags,
                "kinds": dict.fromkeys(tags, "object"), "mine": f"{index} " * 20,
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")
    model = ["--model", model_of(folder, given), "-q"]
    first = start(["generate", "in.jsonl", *model], folder, stdout=subprocess.PIPE)
    clean = ["clean", *model, "-o", "out.jsonl", "--work", "work"]
    second = start(clean, folder, stdin=first.stdout)
    assert first.stdout is not None
    first.stdout.close()
    readings = watch_by_time([first, second], given.seconds, folder / "work")
    mine = (row["mine"] for row in _rows(folder / "out.jsonl"))
    problems = _accounted(mine, given.records, lambda index: f"{index} " * 20)
    return readings, [*_exits(first, 0), *_exits(second, 0), *problems]


def watch_by_time(
    processes: Sequence["subprocess.Popen[bytes]"], seconds: float, work: Path
) -> Readings:
    """Read the processes every so many seconds until `clean`, the last one, has seen all records.

    Then it groups and writes, with parts of its work folder mapped into memory: of that the most
    is printed.
    """
    readings, afterwards, began = Readings(), Readings(), time.monotonic()
    while processes[-1].poll() is None:
        time.sleep(0.2)
        own = afterwards if any(work.rglob("complete.json")) else readings
        n_read = len(readings.rows) + len(afterwards.rows)
        if time.monotonic() - began > n_read * seconds:
            own.add(n_read, [process.pid for process in processes])
    memory, descriptors = afterwards.most()
    print(f"  when all had been read: at most {memory:.0f} MiB, {descriptors:.0f} descriptors")
    return readings


def model_of(folder: Path, given: argparse.Namespace) -> str:
    if given.model is None:
        write_tiny_bundle(folder / "tiny")
    return str(given.model or folder / "tiny")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _exits(process: "subprocess.Popen[bytes]", expected: int) -> list[str]:
    code = process.wait()
    return [] if code == expected else [f"exit code {code} instead of {expected}"]


def _accounted(found: Iterator[str], total: int, expected: Callable[[int], str]) -> list[str]:
    """Find the first problem of an output that should hold `total` records in order."""
    number = 0
    for number, name in enumerate(found, 1):
        if name != expected(number - 1):
            return [f"record {number} is {name!r}, not {expected(number - 1)!r}"]
    return [] if number == total else [f"{number} records out of {total}"]


SOAKS = {"parse": soak_parse, "tag": soak_tag, "engine": soak_engine}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=SOAKS)
    parser.add_argument("files", nargs="*", type=Path, help="captions for parse")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--model", help="in place of a tiny one")
    parser.add_argument("--seconds", type=float, default=2.0, help="between readings of the engine")
    given = parser.parse_intermixed_args()  # files may stand behind options
    with tempfile.TemporaryDirectory() as name:
        readings, problems = SOAKS[given.what](Path(name), given)
    memory, descriptors = readings.growth()
    for problem in problems:
        print(f"{given.what}: {problem}")
    print(
        f"{given.what}, {given.records:,} records, {len(problems)} problems; later half "
        f"{memory:+.1f} MiB (at most {MAX_GROWTH_MIB:g}), {descriptors:+.1f} descriptors"
    )
    return int(bool(problems) or memory > MAX_GROWTH_MIB or descriptors > 8)


if __name__ == "__main__":
    sys.exit(main())
