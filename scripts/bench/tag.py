#!/usr/bin/env python3
"""How fast `ramctl tag` is, as ratios measured in one run on this machine.

    scripts/bench/tag.py --model mini

Prints photos/s against a plain loop (Pillow, torchvision transforms, torch fp32, batch 1). Start-up
and a few hundred small photos are compared with ten lines over the same graphs.
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

from measuring import ENVIRONMENT, SHARED, peak_mb, run_ramctl
from PIL import Image

from ramctl.checkpoints.bundle import Bundle, resolve_model
from ramctl.errors import RamctlError
from ramctl.inference.tagger import Tagger
from ramctl.photos.decoding import load_photo

SIZES = {"640x480": (640, 480), "4000x3000": (4000, 3000)}
# What any program with these graphs has to do: open them, and run photos through them.
TEN_LINES = """
import sys, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1; options.log_severity_level = 3
open_graph = lambda name: ort.InferenceSession(f"{sys.argv[1]}/{name}.onnx", options)
photo, labels = open_graph("photo"), open_graph("labels")
for path in sys.argv[2:]:
    from PIL import Image
    pixels = np.asarray(Image.open(path).convert("RGB").resize((256, 256)), np.float32) / 255
    seen = photo.run(None, {"photos": pixels.transpose(2, 0, 1)[None]})
    seen = dict(zip((output.name for output in photo.get_outputs()), seen))
    seen = {given.name: seen.get(given.name) for given in labels.get_inputs()}
    print(labels.run(None, seen | {"rows": np.ones((128, 449), np.float32)})[0].argmax())
"""
N_SMALL, SMALL = 368, (320, 240)
SOURCES = ("leaf", "clouds", "forest-snow", "street-procession", "windfarm-road")
# Times the photos/s of the plain loop, by size of the photos, runtime and number format.
LEAST = {
    ("640x480", "onnx", "int8"): 4.0,
    ("640x480", "torch", "fp32"): 2.0,
    ("4000x3000", "onnx", "int8"): 6.0,
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


def median_s(*command: object, times: int = 9) -> float:
    """Median wall seconds of a Python program."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *map(str, command)], check=True, capture_output=True, env=ENVIRONMENT
        )
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_small(model: str, photo: Path, folder: Path) -> None:
    """Print start-up and a run over small photos against ten lines, on one thread."""
    small = []
    for number in range(N_SMALL):
        small.append(folder / f"small-{number}.jpg")
        load_photo(str(photo)).resize(SMALL).save(small[-1], quality=90)
    tag = ["-m", "ramctl", "tag", "-q", "-j", "1", "--model", model]
    ten_lines = ["-c", TEN_LINES, Bundle.open(resolve_model(model)).path]
    opening = median_s(*ten_lines)
    start_up = median_s(*tag, photo)
    verdict(f"start-up {start_up:.2f} s: of ten lines", start_up / opening, 1.5, most=True)
    both = [median_s(*lines, *small, times=3) for lines in (tag, ten_lines)]
    verdict(f"{N_SMALL} small photos: of ten lines", both[0] / both[1], 1.05, most=True)
    memory = run_ramctl("tag", "-q", photo).peak_bytes / 2**20
    verdict("memory of one photo", memory, 130, unit="MiB", most=True)


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


def processor() -> str:
    """The processor's name, and whether it has VNNI, which doubles the speed of int8."""
    facts = Path("/proc/cpuinfo").read_text("utf-8")
    name = next(line for line in facts.splitlines() if line.startswith("model name"))
    return f"{name.partition(': ')[2]} with{'' if 'vnni' in facts else 'out'} VNNI"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    given = parser.parse_args()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{processor()}, {cores} cores, load {load:.1f}, model {given.model}")
    with tempfile.TemporaryDirectory() as folder:
        photos = make_photos(Path(folder))
        plain = plain_loop(given.model)
        for size in SIZES:
            print(size)
            plain_rate = rate(plain, photos[size], given.seconds)
            print(f"  plain loop {plain_rate[0]:.1f} photos/s, {plain_rate[1]:.1f} core ms")
            for runtime, dtype in (("onnx", "int8"), ("torch", "fp32")):
                measure(given, size, photos[size], plain_rate, runtime=runtime, dtype=dtype)
        measure_small(given.model, photos["640x480"][0], Path(folder))
    print(f"peak memory of this script with torch: {peak_mb():.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
