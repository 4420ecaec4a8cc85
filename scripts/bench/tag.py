#!/usr/bin/env python3
"""How fast `ramctl tag` is, as ratios measured in one run on this machine.

    scripts/bench/tag.py --model mini

Prints photos/s against a plain loop (Pillow, torchvision transforms, torch fp32, batch 1), the
start-up time and the memory.
Photos are made from the shared full-size ones.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

from measuring import ENVIRONMENT, SHARED, peak_mb
from PIL import Image

from ramctl.errors import RamctlError
from ramctl.inference.tagger import Tagger
from ramctl.photos.decoding import load_photo

SIZES = {"640x480": (640, 480), "4000x3000": (4000, 3000)}
SOURCES = ("leaf", "clouds", "forest-snow", "street-procession", "windfarm-road")
# Times the photos/s of the plain loop, by size of the photos, runtime and number format.
LEAST = {
    ("640x480", "onnx", "int8"): 4.0,
    ("640x480", "onnx", "fp32"): 3.0,
    ("640x480", "torch", "fp32"): 2.0,
    ("4000x3000", "onnx", "int8"): 6.0,
    ("4000x3000", "onnx", "fp32"): 6.0,
    ("4000x3000", "torch", "fp32"): 2.0,
}


def make_photos(folder: Path) -> dict[str, list[Path]]:
    """Twenty JPEGs of each size."""
    made: dict[str, list[Path]] = {}
    for name, size in SIZES.items():
        made[name] = []
        for source in SOURCES:
            photo = load_photo(f"{source}.jpg", SHARED / "data" / "photos" / "fullsize")
            for turn in range(4):
                path = folder / f"{name}-{turn}-{source}.jpg"
                turned = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn % 2 else photo
                turned.resize(size, Image.Resampling.BICUBIC).save(path, quality=90 - turn)
                made[name].append(path)
    return made


def rate(
    tag: Callable[[Iterator[Path]], Iterator[Any]], paths: list[Path], seconds: float
) -> tuple[float, float]:
    """Photos a second of wall time, start-up excluded, and core milliseconds a photo."""
    for _ in tag(iter(paths[:8])):
        pass
    end = time.perf_counter() + seconds

    def endless() -> Iterator[Path]:
        while time.perf_counter() < end:
            yield from paths

    start, used = time.perf_counter(), time.process_time()
    done = sum(1 for _ in tag(endless()))
    used = time.process_time() - used
    return done / (time.perf_counter() - start), used * 1e3 / done


def plain_loop(model: str) -> Callable[[Iterator[Path]], Iterator[Any]]:
    """Tag as the authors' script does: one photo at a time, fp32, in torch."""
    import torch
    from torchvision import transforms

    from ramctl.checkpoints.bundle import Bundle, resolve_model
    from ramctl.checkpoints.load import load_model

    bundle = Bundle.open(resolve_model(model))
    network = load_model(bundle, captioning=False)
    facts = bundle.preprocess
    resize = transforms.Resize((facts.size, facts.size))
    normalise = transforms.Normalize(facts.mean, facts.std)
    prepare = transforms.Compose([resize, transforms.ToTensor(), normalise])

    def tag(paths: Iterator[Path]) -> Iterator[Any]:
        for path in paths:
            photo = prepare(Image.open(path).convert("RGB"))[None]
            with torch.no_grad():
                yield network(photo).logits.total.sigmoid()[0].numpy()

    return tag


def start_up_s(model: str, photo: Path) -> float:
    """Median wall seconds of `ramctl tag photo.jpg`."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        command = [sys.executable, "-m", "ramctl", "tag", "-q", "--model", model, str(photo)]
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(
    given: argparse.Namespace, size: str, paths: list[Path], plain: tuple[float, float], **way: Any
) -> None:
    """Print the ratio of one way to photos of one size; `plain` is (photos/s, core ms)."""
    try:
        tagger = Tagger.from_pretrained(given.model, **way)
    except RamctlError as error:
        print(f"  {way}: {error}")
        return
    ours, used = rate(tagger.tag, paths, given.seconds)
    name = f"{size}, {way['runtime']} {way['dtype']}"
    verdict(f"{name}: against the plain loop", ours / plain[0], LEAST[size, *way.values()])
    # Other programs on the machine take wall time, not core-time: this holds beside them too.
    print(f"     in core-time {plain[1] / used:.2f}")


def verdict(name: str, value: float, target: float, *, unit: str = "x", most: bool = False) -> None:
    """One line: the figure, what is asked for, and whether it holds."""
    holds = value <= target if most else value >= target
    sign = "<=" if most else ">="
    print(f"{'ok  ' if holds else 'MISS'} {name}: {value:.2f} {unit} (required: {sign} {target:g})")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    given = parser.parse_args()
    print(
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, model {given.model}"
    )
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder))
        plain = plain_loop(given.model)
        for size in SIZES:
            print(size)
            plain_rate = rate(plain, photos[size], given.seconds)
            print(f"  plain loop {plain_rate[0]:.1f} photos/s, {plain_rate[1]:.1f} core ms")
            for runtime, dtype in (("onnx", "int8"), ("onnx", "fp32"), ("torch", "fp32")):
                measure(given, size, photos[size], plain_rate, runtime=runtime, dtype=dtype)
        verdict("start-up", start_up_s(given.model, photos["640x480"][0]), 1.2, unit="s", most=True)
    print(f"peak memory of this script with torch: {peak_mb():.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
