#!/usr/bin/env python3
"""All that concerns a GPU, checked and measured in ten minutes: one page in Markdown.

    scripts/gpu_check.py [--out PAGE.md] [--only parity memory ...]
    scripts/gpu_check.py --cpu          # the same on the CPU and small, as far as it makes sense

Each check has a process of its own and a line: ok, FAILED with what was found, or `not here` and
why. One that crashes, hangs or takes the device with it leaves the others alone. Models have random
weights, but for the authors' shrunken ones in `shared/parity`. Nothing is downloaded. Exit code 1
where a check failed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

sys.path.append(str(Path(__file__).resolve().parent / "bench"))
from venv_python import use_venv

use_venv("timm", "torch")

import numpy as np
import official  # scripts/bench
import torch
from flops import make_batch
from measuring import SHARED
from PIL import Image
from safetensors.torch import load_file
from torch.multiprocessing.spawn import start_processes

from ramctl import Tagger
from ramctl.checkpoints.bundle import Bundle, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.checkpoints.official import Architecture, convert_official, read_official
from ramctl.decide.thresholds import bundle_labels
from ramctl.device import Dtype, Runtime, choose_device
from ramctl.engine.torch_engine import BYTES_A_PIXEL, TorchEngine, photos_that_fit
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import load_preset
from ramctl.photos.decoding import load_photo
from ramctl.records.jsonl import dumps
from ramctl.records.parallel import usable_cores
from ramctl.records.report import Report
from ramctl.training.distributed import World, join_world
from ramctl.training.job import RunContext, build_job, runtime_of
from ramctl.training.loop import Pace, StepEvent
from ramctl.training.objectives import Counts, TrainingTask
from ramctl.training.plan import TrainOptions, WorkFolder, open_plan

TOTAL_S = 570  # of all checks
CPU = torch.device("cpu")
Check = Callable[["Place"], tuple[str, bool]]  # what is found, and whether it is as it should be
Gradients = dict[str, torch.Tensor]
# By how much a probability may change, how many of the authors' decisions, and a step's gradient as
# a share of its length. TF32, in which cuDNN multiplies by itself, has the mantissa of fp16.
BOUNDS = {
    "fp32": (0.02, 1, 0.01), "fp32 without TF32": (1e-4, 0, 1e-3), "bf16": (0.06, 2, 0.1),
    "fp16": (0.02, 1, np.inf),  # CPUs: 0.0075 and 0.0103; gradients are scaled there
}  # fmt: skip
AUTHORS = {"ram": "ram_tiny", "ram-plus": "ram_plus_tiny", "tag2text": "tag2text_tiny"}
SMALL_SWIN = [  # RAM, as small as it goes
    "model.encoder.options={drop_path_rate=0.0, embed_dim=8, depths=[2,2,2,2]}",
    "model.encoder.options.num_heads=[1,2,4,8]",
    "model.encoder={width=64, window_size=2, projection=32}", "model.labels.width=32",
    "model.tag_decoder={width=32, ffn_width=64, dropout=0.0}", "preprocess.size=64",
    "model.captioning={width=32, tag_layers=3, layers=2, heads=4, ffn_width=64, dropout=0.0}",
]  # fmt: skip
WITHOUT_DOWNLOADS = ["model.labels.width=192", "model.captioning.pieces=learnt"]
WITHOUT_DOWNLOADS += ["training.encoder="]


class NotHere(Exception):
    """A requirement of a check is missing on this machine."""


@dataclass(frozen=True)
class Place:
    """Where checks run, and what they share. A preset's model is made once."""

    folder: Path
    cpu: bool = False
    gpus: Sequence[str] = ()

    @property
    def device(self) -> torch.device:
        return CPU if self.cpu else torch.device("cuda:0")

    def bundle(self, preset: str, n_labels: int = 100) -> Bundle:
        """A bundle with random weights, at fine-tuning size."""
        path = self.folder / preset
        if not path.exists():
            options = argparse.Namespace(preset=preset, set=[], labels=n_labels)
            official.write_bundle(options, path)
        return Bundle.open(path)

    def large(self) -> Bundle:
        """RAM with Swin-L at 384 px; on the CPU `mini`."""
        return self.bundle("mini") if self.cpu else self.bundle("ram-swin-l", 4585)

    def jpegs(self, number: int) -> list[Path]:
        """Photos of 640 x 480 with as much detail as usual ones."""
        (self.folder / "photos").mkdir(exist_ok=True)
        paths = [self.folder / "photos" / f"{n:03}.jpg" for n in range(number)]
        for n, path in enumerate(paths):
            coarse = np.random.default_rng(n).integers(0, 256, (60, 80, 3), np.uint8)
            Image.fromarray(coarse).resize((640, 480)).save(path, quality=90)
        return paths


def engine_on(device: torch.device, dtype: str, bundle: Bundle) -> TorchEngine:
    """The engine that `ramctl tag` opens."""
    runtime = Runtime.choose(str(device), dtype)
    return TorchEngine.open(bundle, runtime, rows=bundle_labels(bundle).rows, fold=True)


def inputs(number: int, bundle: Bundle) -> Any:
    """Random photos (number, 3, S, S) as the model takes them."""
    shape = number, 3, bundle.preprocess.size, bundle.preprocess.size
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def rate(number: int, work: Callable[[], object], rounds: int = 3) -> float:
    """So many photos by the median seconds of the work, after a round that does not count."""
    return number / statistics.median(timeit.repeat(work, number=1, repeat=1 + rounds)[1:])


def formats(place: Place) -> Iterator[tuple[str, Dtype]]:
    """The rows of BOUNDS to compare with the CPU's fp32, each while it is in force."""
    lacks = "fp32" if place.cpu else "bf16"
    if not place.cpu and torch.cuda.is_bf16_supported(including_emulation=False):
        lacks = "none"
    for name in [name for name in BOUNDS if not name.startswith(lacks)]:
        torch.backends.cudnn.allow_tf32 = "without" not in name
        if place.cpu:  # as tests/parity: oneDNN's fp16 differs from processor to processor
            torch.backends.mkldnn.set_flags(name != "fp16")
        yield name, cast(Dtype, name[:4])


def parity(place: Place) -> tuple[str, bool]:
    """Probabilities and decisions of each number format against the CPU's fp32."""
    models: list[tuple[Bundle, Any, Any]] = []
    for architecture, name in AUTHORS.items() if (SHARED / "parity").is_dir() else ():
        recorded = load_file(SHARED / "parity" / f"{name}_io.safetensors")
        photos, thresholds = recorded["image"].numpy(), recorded["class_threshold"].numpy()
        tensors = read_official(SHARED / "parity" / f"{name}.safetensors")
        converted = convert_official(cast(Architecture, architecture), tensors, len(thresholds))
        with BundleWriter(place.folder / name) as writer:
            writer.meta = write_model(writer.path, *converted)
            labels = LabelSystem.from_tags(map(str, range(len(thresholds))))
            labels.write(writer.path / LABELS)
        models.append((Bundle.open(place.folder / name), photos, thresholds))
    for bundle in () if models else map(place.bundle, ("tiny", "mini")):
        models.append((bundle, inputs(4, bundle), None))
    found, holds = [], True
    for bundle, photos, thresholds in models:
        expected, rows = engine_on(CPU, "fp32", bundle).scores(photos), []
        for name, dtype in formats(place):
            scores = engine_on(place.device, dtype, bundle).scores(photos)
            moved = float(np.abs(scores - expected).max())
            cut = 0.5 if thresholds is None else thresholds
            changed = int(((scores > cut) != (expected > cut)).sum())
            rows.append(f"{name} {moved:.2g}, {changed} of {scores.size} decisions")
            # Random weights are rounded more (bf16 moved a score of `mini` by 0.082), and score
            # about a half: their decisions tell nothing.
            is_random, (most_moved, most_changed, _) = thresholds is None, BOUNDS[name]
            holds &= moved <= most_moved * (3 if is_random else 1)
            holds &= is_random or changed <= most_changed
        found.append(f"{bundle.path.name}: {'; '.join(rows)}")
    return "<br>".join(found), holds


def memory(place: Place) -> tuple[str, bool]:
    """The peak of a batch against the rule, which may use half of what is free."""
    if place.cpu:
        raise NotHere("the rule is one of a GPU's memory")
    bundle, found, holds = place.large(), [], True
    for dtype in ("fp32", "auto"):
        engine, said = engine_on(place.device, dtype, bundle), list[str]()
        size = bundle.preprocess.size
        engine.notify = said.append
        engine.scores(inputs(1, bundle))  # what is made once
        torch.cuda.empty_cache()
        number = photos_that_fit(place.device, size, 1)
        peak, rule = peak_of(engine, inputs(number, bundle)), number * BYTES_A_PIXEL * size**2
        shown = f"predicted {rule / 2**20:.0f} MiB, measured {peak / 2**20:.0f} MiB"
        found.append(f"{engine.runtime.dtype}, {number} photos: {shown}; {peak / rule:.2f} times")
        holds &= not said and peak <= 2 * rule
        del engine
    return "<br>".join(found), holds


def peak_of(engine: TorchEngine, photos: Any) -> int:
    """Bytes that a batch takes on a GPU besides what is there."""
    torch.cuda.reset_peak_memory_stats(engine.runtime.device)
    before = torch.cuda.memory_allocated(engine.runtime.device)
    engine.scores(photos)
    return int(torch.cuda.max_memory_allocated(engine.runtime.device)) - before


def halving(place: Place) -> tuple[str, bool]:
    """A batch that runs out of memory has the scores of the smaller ones that it becomes."""
    bundle, said = place.large(), list[str]()
    engine, photos = engine_on(place.device, "auto", bundle), inputs(16, bundle)
    engine.notify, forward = said.append, engine.model.forward

    def short(photos: torch.Tensor, *more: Any, **named: Any) -> Any:
        if len(photos) > 5:
            raise torch.OutOfMemoryError("as if")
        return forward(photos, *more, **named)

    if place.cpu:
        engine.model.forward = short  # type: ignore[method-assign]
        scores = engine.scores(photos)
    else:
        engine.scores(photos)
        needed = peak_of(engine, photos)
        torch.cuda.empty_cache()
        there = torch.cuda.memory_reserved(0) + 0.4 * needed
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(there / total, 0)
        scores = engine.scores(photos)
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    if not said:
        return "memory did not run out, although it was limited to 0.4 of what is needed", False
    size = int(said[-1].split()[-1])
    smaller = [engine.scores(photos[i : i + size]) for i in range(0, len(photos), size)]
    moved = float(np.abs(scores - np.concatenate(smaller)).max())
    return f"16 photos became batches of {size}: scores differ by {moved:.2g}", moved <= 1e-5


def devices(place: Place) -> tuple[str, bool]:
    """Several devices give the bytes that one gives."""
    names = ["cpu"] * 2 if place.cpu else [f"cuda:{n}" for n in need_two(place)]
    bundle, said = place.bundle("tiny") if place.cpu else place.large(), list[str]()
    paths = place.jpegs(32)
    open_on = partial(
        Tagger.from_pretrained, str(bundle.path), runtime="torch", dense=True, threshold=0.5,
        batch_size=4, num_workers=2, notify=said.append,
    )  # fmt: skip
    one, several = (
        [dumps(result.record) for result in open_on(device=device).tag(paths)]
        for device in (names[0], ",".join(names))
    )
    other = sum(a != b for a, b in zip(one, several, strict=True))
    found = f"{','.join(names)}: {other} of {len(one)} records differ from those of {names[0]}"
    return "; ".join([found, *said]), not other and not said


def need_two(place: Place) -> range:
    """The numbers of the GPUs; NotHere where there is one."""
    if len(place.gpus) < 2:
        raise NotHere("one GPU")
    return range(len(place.gpus))


def gradients(preset: list[str], passes: list[int], runtime: Runtime, world: World) -> Gradients:
    """A step's gradients, of some of two passes; weights and batches are the same each time."""
    torch.manual_seed(0)
    config = load_preset(preset[0], ["training.distill=[]", *preset[1:]])
    size, numbers = config.preprocess.size, (2, 20, 1000)  # photos, labels, vocabulary
    model = build_ram(config.model, image_size=size, n_labels=20, vocabulary=1000)
    torch.nn.init.normal_(model.labels.text)
    both = [make_batch(config, *numbers), make_batch(config, *numbers)]
    task = TrainingTask(model, config.training).to(runtime.device)
    task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module, counts = world.wrap(task, runtime.device).train(), [task.counts(b) for b in both]
    step = {name: counts[0][name] + counts[1][name] for name in counts[0]}
    for number in passes:
        with runtime.precision():
            losses = module(both[number].to(runtime.device))
        own = Counts(counts[number], step, len(passes), world.size)
        task.reduce(losses, own).backward()
    return {n: p.grad.float().cpu() for n, p in task.named_parameters() if p.grad is not None}


def distance(found: Gradients, expected: Gradients) -> float:
    """How far gradients are from others, as a share of their length."""
    one, other = (torch.cat([x[name].flatten() for name in expected]) for x in (found, expected))
    return float((one - other).norm() / other.norm())


def one_step(place: Place) -> tuple[str, bool]:
    """The gradients of a training step against those on the CPU in fp32."""
    found, holds = [], True
    for preset in (["tiny"], ["ram-swin-b", *SMALL_SWIN]):
        expected = gradients(preset, [0, 1], Runtime(CPU), World())
        for name, dtype in formats(place):
            own = gradients(preset, [0, 1], Runtime(place.device, dtype), World())
            far, most = distance(own, expected), BOUNDS[name][2]
            found += [f"{preset[0]} {name} {far:.2g}"] * (most < np.inf)
            holds &= far <= most or most == np.inf
    return f"of the gradient's length: {'; '.join(found)}", holds


def one_of_two(rank: int, kind: str, port: int, path: Path) -> None:
    """A process that does one of two passes; the first one keeps the gradients."""
    named = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in named.items()} | {"MASTER_ADDR": "127.0.0.1"}
    with join_world(kind) as world:
        runtime = Runtime(choose_device(kind, local_rank=rank))
        torch.save(gradients(["tiny"], [rank], runtime, world), f"{path}.{rank}")


def in_two(kind: str, place: Place) -> Gradients:
    """The gradients of a step of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port, path = free.getsockname()[1], place.folder / kind
    start_processes(one_of_two, (kind, port, path), nprocs=2, start_method="fork")
    return cast(Gradients, torch.load(f"{path}.0"))


def processes(place: Place) -> tuple[str, bool]:
    """A step of two processes: by NCCL against gloo; on the CPU by gloo against one process."""
    if place.cpu:  # two first: what has computed is not forked
        far = distance(in_two("cpu", place), gradients(["tiny"], [0, 1], Runtime(CPU), World()))
        return f"gloo, 2 processes against 1: {far:.2g} of the gradient's length", far <= 1e-4
    need_two(place)
    far = distance(in_two("cuda", place), in_two("cpu", place))
    return f"NCCL against gloo: {far:.2g} of the gradient's length", far <= BOUNDS["fp32"][2]


def loader(place: Place) -> tuple[str, bool]:
    """Training steps as `ramctl train` does them, with the share of waiting for data."""
    preset, steps, settings = "ram-swin-l", 24, WITHOUT_DOWNLOADS
    if place.cpu:
        preset, steps, settings = "tiny", 6, []
    fields = {"tags": ["dog"], "captions": ["a dog in a field"], "caption_tags": [["dog"]]}
    lines = [json.dumps({"image": str(path)} | fields) + "\n" for path in place.jpegs(64)]
    (place.folder / "records.jsonl").write_text("".join(lines * (1 if place.cpu else 16)))
    options = TrainOptions(
        inputs=(str(place.folder / "records.jsonl"),), out=place.folder / "trained", preset=preset,
        overrides=("training.distill=[]", *settings, "training.batch_size=16"),
        device=str(place.device), workers=0 if place.cpu else min(usable_cores(), 16),
    )  # fmt: skip
    report, work = Report("train", quiet=True), WorkFolder(options.out)
    open_plan(options, work, report)
    runtime = runtime_of(options, "fp32" if place.cpu else "auto")
    context = RunContext(
        World(), runtime, "train", report.notify, report.reject,
        lambda title, total: nullcontext(lambda number: None), options.workers,
    )  # fmt: skip
    job = build_job(work.read_plan(options), work, context)
    pace = Pace(steps + 1, work.checkpoints, save_every=steps + 2)  # cut off before it saves
    events = list(islice(job.trainer.events(job.training_set.batches, pace), steps))
    done = [event for event in events if isinstance(event, StepEvent)]
    later = done[steps // 2 :]
    photos_s = statistics.median(event.rate_img_s for event in later)
    waits = statistics.median(event.wait_share for event in later)
    found = f"{preset}, {runtime.dtype}, batch 16, -j {options.workers}: {photos_s:.4g} photos/s, "
    found += (
        f"{waits:.0%} of the time waiting for data; loss {done[0].loss:.3g} to {done[-1].loss:.3g}"
    )
    return found, not report.n_rejected and not any(event.skipped for event in done)


def end_to_end(place: Place) -> tuple[str, bool]:
    """JPEGs to tags against the bare model, and whether decoding on the GPU could pay."""
    bundle, one = place.large(), 1 if place.cpu else None
    tagger = Tagger.from_pretrained(
        str(bundle.path), runtime="torch", device=str(place.device), num_workers=one, threads=one
    )
    engine, batch, size = cast(Any, tagger.runner).engine, tagger.batch, bundle.preprocess.size
    few = place.jpegs(32)
    paths = (few * 40)[: (8 if place.cpu else 20) * batch]
    pixels = torch.from_numpy(inputs(batch, bundle)).to(place.device)
    model = rate(batch, lambda: engine.scores(pixels), 5)
    whole = rate(len(paths), lambda: list(tagger.tag(iter(paths))), 1)
    read = rate(32, lambda: [tagger.prepare_photo(path, "") for path in few])
    jpeg = rate(32, lambda: [load_photo(str(path), target=size) for path in few])
    with ThreadPoolExecutor(tagger.workers) as pool:
        decode = lambda path: tagger.prepare_photo(path, "")  # noqa: E731
        ready = rate(len(paths), lambda: list(pool.map(decode, paths)))
    pays = "would not pay: decoding is not the limit"
    if ready < model and whole < 0.9 * model:
        pays = f"could pay: the model takes {model / ready:.1f} times what these cores decode"
    found = f"{bundle.path.name}, {tagger.description}: JPEGs to tags {whole:.4g} photos/s, bare "
    found += f"model {model:.4g} (share {whole / model:.2f}); a core reads {read:.4g}, JPEG "
    found += f"decoding is {read / jpeg:.0%} of that; {tagger.workers} threads read {ready:.4g}"
    return f"{found}; NVJPEG or DALI {pays}", True


def compiled(place: Place) -> tuple[str, bool]:
    """The gain of torch.compile, which ramctl does not use."""
    bundle = place.bundle("tiny") if place.cpu else place.large()
    engine = engine_on(place.device, "auto", bundle)
    number = photos_that_fit(place.device, bundle.preprocess.size, 4)
    photos = torch.from_numpy(inputs(number, bundle)).to(place.device)
    off = rate(number, lambda: engine.scores(photos), 5)
    backend, start = "aot_eager" if place.cpu else "inductor", time.perf_counter()
    try:  # the first of these needs no compiler
        engine.model.compile(backend=backend)
        engine.scores(photos)
        first = time.perf_counter() - start
        on = rate(number, lambda: engine.scores(photos), 5)
    except Exception as error:
        raise NotHere(f"off {off:.4g} photos/s, on: {error}") from error
    found = f"{bundle.path.name}, {engine.runtime.dtype}, batch {number}: off {off:.4g} photos/s, "
    return f"{found}on {on:.4g} ({backend}, {first:.0f} s for the first batch)", True


CHECKS: dict[str, tuple[Check, int]] = {  # with the seconds that each may take
    "parity": (parity, 90), "memory": (memory, 90), "halving": (halving, 90),
    "devices": (devices, 120), "one_step": (one_step, 60), "processes": (processes, 90),
    "loader": (loader, 120), "end_to_end": (end_to_end, 120), "compiled": (compiled, 300),
}  # fmt: skip


def told(check: Check, place: Place) -> tuple[str, str]:
    """How a check ends, whatever it raises: ok, FAILED or not here, and what it found."""
    try:
        if not place.cpu and not place.gpus:
            raise NotHere("torch finds no GPU")
        found, holds = check(place)
        return "ok" if holds else "FAILED", found
    except NotHere as why:
        return "not here", str(why)
    except Exception as error:
        return "FAILED", f"{type(error).__name__}: {error}"


def in_process(work: Callable[..., Any], *arguments: Any, limit: float) -> Any:
    """Run work in its own process, which is ended with all that it started.

    It is forked, as imports take longer than most checks: so this one must never compute.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def do() -> None:
        os.setsid()
        os.dup2(2, 1)  # what libraries print is not of the page
        there.send(work(*arguments))

    process = context.Process(target=do)
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(limit) else ("FAILED", f"not done after {limit:.0f} s")
    except EOFError:
        process.join()
        return "FAILED", f"its process died (exit code {process.exitcode})"
    finally:
        with suppress(OSError):
            os.killpg(cast(int, process.pid), signal.SIGKILL)
        process.kill()
        process.join()


def gpus_here() -> list[str]:
    """The GPUs by name and memory."""
    numbers = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    facts = map(torch.cuda.get_device_properties, numbers)
    return [f"{one.name}, {one.total_memory / 2**30:.0f} GiB" for one in facts]


def line(check: str, verdict: str, found: str, seconds: float) -> str:
    """A check's line of the page."""
    found = " ".join(found.replace("|", "/").split())[:1500]
    colon = ":" if verdict == "not here" else ""
    return f"| {check} | {verdict}{colon} | {found} | {seconds:.0f} s |"


def main(arguments: Sequence[str] | None = None) -> int:
    raw = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--cpu", action="store_true", help="everything on the CPU, and small")
    parser.add_argument("--out", type=Path, help="the page; else standard output")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    given = parser.parse_args(arguments)
    ends, gpus = time.monotonic() + TOTAL_S, [] if given.cpu else in_process(gpus_here, limit=60)
    where = ": ".join(gpus) or ("the CPU" if given.cpu else "no GPU")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    about = f"{usable_cores()} cores, CUDA {torch.version.cuda}, {versions}."
    page = [f"# GPU check: {where}", "", about, "", "| check | | found | |", "|---|---|---|---|"]
    verdicts, is_broken = [], gpus[:1] == ("FAILED",)
    if is_broken:  # torch ends, or hangs, where it looks for GPUs
        gpus, verdicts = [], ["FAILED"]
    with tempfile.TemporaryDirectory(prefix="ramctl-gpu-", ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder), given.cpu, gpus)
        for name in given.only:
            check, most = CHECKS[name]
            start, verdict, found = time.monotonic(), "not here", "ten minutes are over"
            if start < ends - 5:
                verdict, found = in_process(told, check, place, limit=min(most, ends - start))
            page.append(line(name, verdict, found, time.monotonic() - start))
            verdicts.append(verdict)
            print(f"{name}: {verdict}", file=sys.stderr)
    text = "\n".join(page) + "\n"
    if given.out:
        given.out.write_text(text, "utf-8")
    else:
        print(text, end="")
    return int("FAILED" in verdicts)


if __name__ == "__main__":
    sys.exit(main())
