#!/usr/bin/env python3
"""Estimate a data set: hours per stage, bytes, shards, the bottleneck, and the gain of doubling.

    scripts/scale_plan.py --gpus 8 --cores 256 --rate detect=12,4,330000,900 ...
    scripts/scale_plan.py --gpu h100 --gpus 8 --cores 128 --preset ram-swin-l
    scripts/scale_plan.py --sample captions.jsonl --root photos --cores 64 --save rates.json
    scripts/scale_plan.py --rates rates.json --gpus 8 --cores 256 --images 4e6 14e6 1e9

A rate is STAGE=CORE_MS,GPU_MS,BYTES_IN,BYTES_OUT, each for one image (of train: for one image in
one epoch): milliseconds of one core, milliseconds of one GPU (0: the stage uses none, what its
model needs is in the cores'), bytes read and written. `--sample` measures all stages by running
them on a few records with captions, on one core without a GPU, start-up not counted; for training
on GPUs take `seconds_a_step / photos_a_step` of `ramctl train --dry-run`. Without such a GPU,
`--gpu NAME` estimates what the preset takes: its operations are counted, and divided by what a GPU
of that kind is likely to do a second, from the lowest to the highest share of its maker's figure
that was published for Swin. `--tflops` names the TFLOP/s in practice instead. Cores then only
decode photos, in the time that `--decode-ms` says. Rates that are
given outrank computed ones, and these measured ones. A plan is arithmetic: it knows nothing of
machines that fail or wait.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from venv_python import use_venv

use_venv()

from measuring import run_ramctl

from ramctl.errors import RamctlError

IMAGES = (4e6, 14e6, 1e9)  # the paper's two data sets, and one that is 70 times larger
FEW = 2  # records of a run that measures the start-up
SHARD_S = 1800  # what one shard should take one worker: a lost worker costs no more
# Makers' TFLOP/s, dense, in bf16 or fp16 with sums in fp32.
GPUS = {
    "t4": 65, "v100": 125, "a10": 125, "l4": 121, "l40s": 362, "rtx3090": 71, "rtx4090": 165,
    "rtx5090": 210, "a100": 312, "h100": 989, "h200": 989, "b200": 2250,
}  # fmt: skip
# Shares of them that Swin reached in mixed precision. The lowest: Swin-B in training on A100
# (PLSC's benchmark: 2,155 photos a second on eight); the highest: Swin-L in tagging on RTX 3090
# (timm's results: 503 a second). RTX 4090 and 5090 reached 0.18 to 0.37 in tagging (timm's).
SHARES = (0.08, 0.49)
STAGES = ("parse", "train", "generate", "detect", "cluster", "apply", "tag")
# `apply` is one run; every process of `cluster` estimates all chances, so that more bring little.
ONE_PROCESS = ("cluster", "apply")


@dataclass(frozen=True, slots=True)
class Rate:
    """The cost of one image in a stage."""

    core_s: float
    gpu_s: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or not math.isfinite(sum(asdict(self).values())):
            raise ValueError("a rate is negative or not finite")

    def times(self, passes: float) -> "Rate":
        """The rate of so many passes over the images; what is written is written once."""
        return Rate(
            self.core_s * passes, self.gpu_s * passes, self.bytes_in * passes, self.bytes_out
        )


@dataclass(frozen=True, slots=True)
class Machines:
    """The available resources."""

    cores: int
    gpus: int = 0
    storage_bytes_s: float = 1e9  # read and write, of all machines together


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The time and space of a stage for a number of images."""

    hours: float
    bytes_in: float
    bytes_out: float
    shards: int
    bottleneck: str  # cores, gpus, storage, or `one process`
    saved_hours: float  # by twice as much of the bottleneck


def stage_limits(rate: Rate, images: float, machines: Machines, *, one: bool) -> dict[str, float]:
    """The seconds that each resource alone needs; ValueError where it is not there."""
    if rate.gpu_s and not machines.gpus:
        raise ValueError("needs GPUs: give --gpus, or a rate without them")
    cores = "one process" if one else "cores"
    return {
        cores: images * rate.core_s / (1 if one else machines.cores),
        "gpus": images * rate.gpu_s / machines.gpus if rate.gpu_s else 0.0,
        "storage": images * (rate.bytes_in + rate.bytes_out) / machines.storage_bytes_s,
    }


def plan_stage(rate: Rate, images: float, machines: Machines, *, one: bool = False) -> StagePlan:
    """The plan of a stage whose resources work side by side, so that the slowest decides."""
    limits = stage_limits(rate, images, machines, one=one)
    bottleneck = max(limits, key=lambda name: limits[name])
    worst = limits[bottleneck]
    others = max(seconds for name, seconds in limits.items() if name != bottleneck)
    # One process gains nothing from more machines.
    doubled = worst if bottleneck == "one process" else max(worst / 2, others)
    return StagePlan(
        worst / 3600,
        images * rate.bytes_in,
        images * rate.bytes_out,
        n_shards(rate, images, machines, one=one),
        bottleneck,
        (worst - doubled) / 3600,
    )


def n_shards(rate: Rate, images: float, machines: Machines, *, one: bool = False) -> int:
    """The input shards: of SHARD_S seconds of one worker, but one for each worker at least."""
    if one:
        return 1
    workers = machines.gpus if rate.gpu_s else machines.cores
    # A worker with a GPU has its share of the cores too.
    seconds = max(rate.gpu_s, rate.core_s * workers / machines.cores)
    return max(1, min(max(workers, math.ceil(images * seconds / SHARD_S)), math.ceil(images)))


def plan(
    rates: Mapping[str, Rate], images: float, machines: Machines, epochs: float
) -> dict[str, StagePlan]:
    """The plans of all stages that have a rate; ValueError names the stage."""
    plans = {}
    for stage, rate in rates.items():
        try:
            own = rate.times(epochs) if stage == "train" else rate
            plans[stage] = plan_stage(own, images, machines, one=stage in ONE_PROCESS)
        except ValueError as error:
            raise ValueError(f"{stage} {error}") from error
    return plans


def next_doubling(plans: Mapping[str, StagePlan]) -> tuple[str, float]:
    """The resource to double first, and the hours saved over all stages."""
    saved: dict[str, float] = {}
    for one in plans.values():
        saved[one.bottleneck] = saved.get(one.bottleneck, 0.0) + one.saved_hours
    best = max(saved, key=lambda name: saved[name])
    return best, saved[best]


def read_rate(text: str) -> tuple[str, Rate]:
    """STAGE=CORE_MS[,GPU_MS[,BYTES_IN[,BYTES_OUT]]]; ValueError where it is not that."""
    stage, equals, numbers = text.partition("=")
    if stage not in STAGES or not equals:
        raise ValueError(f"{text!r}: expected STAGE=CORE_MS,..., STAGE one of {', '.join(STAGES)}")
    core_ms, gpu_ms, *sizes = [*map(float, numbers.split(",")), *[0.0] * 4][:4]
    return stage, Rate(core_ms / 1e3, gpu_ms / 1e3, *sizes)


def run_stages(captions: Path, folder: Path, root: Path, model: str) -> dict[str, tuple[Any, ...]]:
    """Core seconds, bytes in besides photos, and bytes out of each stage but training."""
    parsed, more, work, out = (folder / name for name in ("parsed", "more", "work", "out"))
    own = ["--model", model, "--threads", 1, "-j", 1, "--device", "cpu"]
    of_photos = ["--root", root, *own]
    stage = ["clean", "--work", work, "--stage"]
    seconds = {
        "parse": run_ramctl("parse", captions, "-o", parsed).core_s,
        "generate": run_ramctl("generate", parsed, *of_photos, "-o", more).core_s,
        "detect": run_ramctl(*stage, "detect", more, *of_photos).core_s,
        "cluster": run_ramctl(*stage, "cluster", *own).core_s,
        "apply": run_ramctl(*stage, "apply", *own, "-o", out).core_s,
        "tag": run_ramctl("tag", captions, *of_photos, "-o", folder / "tags").core_s,
    }
    regions = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    sizes = {path.name: path.stat().st_size for path in (captions, parsed, more, out)}
    tags = (folder / "tags").stat().st_size
    read = sizes[captions.name]
    moved = {
        "parse": (read, sizes["parsed"]),
        "generate": (sizes["parsed"], sizes["more"]),
        "detect": (sizes["more"], regions),
        "cluster": (regions, 0),
        "apply": (regions, sizes["out"]),
        "tag": (read, tags),
    }
    return {name: (seconds[name], *moved[name]) for name in seconds}


def measure(sample: Path, root: Path, model: str, preset: str | None) -> dict[str, Rate]:
    """The rates of all stages: what the whole sample takes more than its first records do.

    Without a preset nothing is trained, and the rate of that is 0.
    """
    lines = [line for line in sample.read_bytes().splitlines(keepends=True) if line.strip()]
    n = len(lines) - FEW
    if n < 1:
        raise ValueError(f"{sample}: a sample has more than {FEW} records")
    found = []
    with tempfile.TemporaryDirectory(prefix="ramctl-scale-") as place:
        for name, own in (("few", lines[:FEW]), ("all", lines)):
            folder = Path(place) / name
            folder.mkdir()
            captions = folder / "captions.jsonl"
            captions.write_bytes(b"".join(own))
            found.append(run_stages(captions, folder, root, model))
        trained = train_rate(Path(place) / "all" / "parsed", root, preset) if preset else 0.0
    photos = [root / json.loads(line)["image"] for line in lines]
    photo_bytes = sum(path.stat().st_size for path in photos) / len(photos)
    rates = {"train": Rate(trained, 0.0, photo_bytes)}
    for stage, whole in found[1].items():
        seconds, read, written = (
            max(a - b, 0.0) / n for a, b in zip(whole, found[0][stage], strict=True)
        )
        looks = stage in ("generate", "detect", "tag")
        rates[stage] = Rate(seconds, 0.0, read + photo_bytes * looks, written)
    return {stage: rates[stage] for stage in STAGES}


def train_rate(records: Path, root: Path, preset: str) -> float:
    """Core seconds of training on one image once, on one thread."""
    command = ["train", "--dry-run", records, "--root", root, "--preset", preset]
    command += ["--device", "cpu", "--threads", "1", "--out", records.parent / "model"]
    facts = json.loads(run_ramctl(*command).output)
    return float(facts["seconds_a_step"] / facts["photos_a_step"])


def shown_bytes(number: float) -> str:
    """A number of bytes in three digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} PB"


def report(plans: Mapping[str, StagePlan], images: float, machines: Machines) -> list[str]:
    """The lines of a plan."""
    lines = [
        f"{images:,.0f} images, {machines.gpus} GPUs, {machines.cores} cores, "
        f"storage {shown_bytes(machines.storage_bytes_s)}/s",
        f"{'stage':10}{'hours':>10}{'in':>10}{'out':>10}{'shards':>9}  bottleneck (twice saves)",
    ]
    for stage, one in plans.items():
        lines.append(
            f"{stage:10}{one.hours:>10.3g}{shown_bytes(one.bytes_in):>10}"
            f"{shown_bytes(one.bytes_out):>10}{one.shards:>9}  "
            f"{one.bottleneck} ({one.saved_hours:.3g} h)"
        )
    what, saved = next_doubling(plans)
    total = sum(one.hours for one in plans.values())
    best = f"twice the {what} saves {saved:.3g}" if saved else "no doubling saves any"
    return [*lines, f"{'all':10}{total:>10.3g}  hours one stage after the other; {best}", ""]


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=float, nargs="+", default=IMAGES)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--storage", type=float, default=1e9, help="bytes a second, all together")
    parser.add_argument("--epochs", type=float, default=5, help="passes of training")
    parser.add_argument("--rate", type=read_rate, action="append", default=[])
    parser.add_argument("--rates", type=Path, help="rates that --save has written")
    parser.add_argument("--sample", type=Path, help="JSONL with image and captions, to measure by")
    parser.add_argument("--root", type=Path, help="folder of its photos")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--preset", default="mini")
    computed = parser.add_mutually_exclusive_group()
    computed.add_argument("--gpu", choices=GPUS, help="its kind: an estimate, with its range")
    computed.add_argument("--tflops", type=float, help="of one GPU, in practice")
    parser.add_argument("--labels", type=int, default=4585, help="of the model")
    parser.add_argument("--decode-ms", type=float, default=10.0, help="of one core, for one photo")
    parser.add_argument("--save", type=Path, help="write the rates as JSON")
    given = parser.parse_args(arguments)
    if given.cores < 1 or given.gpus < 0 or given.storage <= 0 or min(given.images) < 1:
        parser.error("cores, storage and images are at least 1, GPUs at least 0")
    if not (given.rate or given.rates or given.sample or given.gpu or given.tflops):
        parser.error("no rates: give --rate, --rates, --sample, --gpu or --tflops")
    if given.gpu and given.save:
        parser.error("--save keeps rates, not a range: name --tflops instead of --gpu")
    if min(given.tflops or 1, given.decode_ms, given.labels) <= 0:
        parser.error("TFLOP/s, milliseconds and labels are more than 0")
    return given


def measured_rates(given: argparse.Namespace) -> dict[str, Rate]:
    """The rates of a file, and those of a sample."""
    rates: dict[str, Rate] = {}
    if given.rates:
        rates |= {name: Rate(**own) for name, own in json.loads(given.rates.read_text()).items()}
    if given.sample:
        root = given.root or given.sample.parent
        preset = None if given.tflops or given.gpu else given.preset
        rates |= measure(given.sample, root, given.model, preset)
    return rates


def rates_at(
    tflops: float | None, gflop: Mapping[str, float], measured: Mapping[str, Rate],
    given: argparse.Namespace,
) -> dict[str, Rate]:  # fmt: skip
    """All rates with GPUs that do so many TFLOP/s, in the order of the stages."""
    rates = dict(measured)
    for stage, number in gflop.items():
        moved = rates.get(stage, Rate(0.0))
        core_s, gpu_s = given.decode_ms / 1e3, number / (tflops or math.nan) / 1e3
        rates[stage] = Rate(core_s, gpu_s, moved.bytes_in, moved.bytes_out)
    rates |= dict(given.rate)
    return {stage: rates[stage] for stage in STAGES if stage in rates}


def describe_estimate(gpu: str, preset: str, gflop: Mapping[str, float], ends: list[float]) -> str:
    """What is estimated, from what, and images a second of one GPU."""
    rates = {stage: [tflops * 1e3 / number for tflops in ends] for stage, number in gflop.items()}
    images = (f"{stage} {low:,.0f} to {high:,.0f}" for stage, (low, high) in rates.items())
    low, high = ends
    return (
        f"An estimate, nothing was measured: {preset} on {gpu} at {low:.0f} to {high:.0f} of its "
        f"{GPUS[gpu]} TFLOP/s.\nImages a second of one GPU: {', '.join(images)}.\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    given = read_arguments(arguments)
    machines = Machines(given.cores, given.gpus, given.storage)
    ends = [GPUS[given.gpu] * share for share in SHARES] if given.gpu else [given.tflops]
    try:
        measured, gflop = measured_rates(given), {}
        if given.gpu or given.tflops:
            from flops import count  # torch

            gflop = count(given.preset, given.labels)
        if given.gpu:
            print(describe_estimate(given.gpu, given.preset, gflop, ends))
        for images in given.images:
            for tflops in ends:
                rates = rates_at(tflops, gflop, measured, given)
                plans = plan(rates, images, machines, given.epochs)
                if given.gpu:
                    print(f"At {tflops:.0f} TFLOP/s:")
                print("\n".join(report(plans, images, machines)))
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, RamctlError) as error:
        print(f"scale_plan.py: {error}", file=sys.stderr)
        return 1
    if given.save:
        given.save.write_text(json.dumps({name: asdict(own) for name, own in rates.items()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
