#!/usr/bin/env python3
"""Tagging with the authors' models: speed and memory against their fp32 path, in one run.

The reference is timm's Swin in fp32 and the tag decoder written plainly: label queries projected
and repeated for every photo, attention by matrix products, photos decoded by Pillow and resized
whole, one after the other. Ours is `Tagger` on a bundle with the same (random) weights, in each
number format. Both tag the same JPEGs in turn; figures are medians over `--repeat` turns after one
that is not counted. Peak memory is that of a process of its own that tags a photo, less that of
one that has imported the same. On a GPU a row compares JPEGs to tags with the compiled model alone.

    scripts/bench/official.py --preset ram-swin-l --repeat 5 --threads 1
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("timm", "torch")

import numpy as np
import timm
import torch
import torch.nn.functional as F
from measuring import peak_mb
from PIL import Image
from timm.layers.config import set_fused_attn

from ramctl import Tagger
from ramctl.checkpoints.bundle import WEIGHTS, Bundle, BundleWriter
from ramctl.checkpoints.load import load_model, write_model
from ramctl.decide.thresholds import bundle_labels
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.build_ram import build_ram
from ramctl.model.preset import Preset, finetuning_preset, load_preset
from ramctl.model.ram import RAM

DESCRIPTIONS = 51  # a label, in RAM++
PHOTO = (640, 480)
SPEED, MEMORY, GPU = 2.0, 1.3, 0.9  # what the better number format reaches; weights in use = 1


def plain_logits(model: RAM, features: torch.Tensor) -> torch.Tensor:
    """Tag logits of the encoder's features as the authors' forward computes them."""
    tokens = model.token_projection(features)
    rows = model.labels()
    if model.weighting is not None:  # RAM++, photo by photo
        feature = F.normalize(tokens[:, 0], dim=-1)
        scale = model.weighting.log_scale.exp()
        weights = (scale * feature @ rows.flatten(0, 1).t()).view(len(tokens), *rows.shape[:2])
        rows = torch.stack([(w.softmax(-1)[..., None] * rows).sum(1) for w in weights])
    project: Any = model.label_queries.projection
    states = F.relu(project(rows))
    x = states if states.dim() == 3 else states[None].repeat(len(features), 1, 1)
    for layer in model.tag_decoder.layers:
        block, heads = layer.cross_attention, layer.heads

        def split(y: torch.Tensor, heads: int = heads) -> torch.Tensor:
            return y.view(*y.shape[:2], heads, -1).transpose(1, 2)

        q, k, v = split(block.query(x)), split(block.key(tokens)), split(block.value(tokens))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = block.norm(block.output((weights @ v).transpose(1, 2).flatten(2)) + x)
        ffn = layer.feed_forward
        x = ffn.norm(ffn.contract(F.gelu(ffn.expand(x))) + x)
    head: Any = model.tag_decoder.shared_head
    logits: torch.Tensor = head(x).squeeze(-1)
    return logits


def plain_pixels(path: Path, preset: Preset) -> torch.Tensor:
    """A photo (1, 3, S, S) as the authors' transform makes it."""
    config = preset.preprocess
    with Image.open(path) as photo:
        resized = photo.convert("RGB").resize((config.size, config.size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(resized, np.float32)).permute(2, 0, 1)[None] / 255
    return (pixels - torch.tensor(config.mean)[:, None, None]) / torch.tensor(config.std)[
        :, None, None
    ]


def build(options: argparse.Namespace) -> tuple[RAM, Preset]:
    """The preset's model without its captioning branch, random weights, at fine-tuning size."""
    preset = finetuning_preset(load_preset(options.preset, options.set))
    preset = replace(preset, model=replace(preset.model, captioning=None))
    described = preset.model.labels.kind == "descriptions"
    model = build_ram(
        preset.model, image_size=preset.preprocess.size, n_labels=options.labels,
        description_counts=[DESCRIPTIONS] * options.labels if described else None,
    )  # fmt: skip
    with torch.no_grad():
        model.labels.text.normal_()
    return model.eval(), preset


def write_bundle(options: argparse.Namespace, path: Path) -> Bundle:
    """A bundle of the model that `build` makes."""
    model, preset = build(options)
    with BundleWriter(path) as writer:
        writer.meta = write_model(writer.path, preset, model)
        labels = LabelSystem.from_tags([f"tag {n}" for n in range(options.labels)])
        labels.write(writer.path / LABELS)
    return Bundle.open(path)


def write_photos(folder: Path, number: int) -> list[Path]:
    """JPEGs that differ."""
    paths = [folder / f"{n}.jpg" for n in range(number)]
    for n, path in enumerate(paths):
        photo = Image.effect_mandelbrot(PHOTO, (-2 + n / 10, -1, 0.7, 1), 90).convert("RGB")
        photo.save(path, quality=90)
    return paths


def tagger_of(bundle: Bundle, dtype: Any, options: argparse.Namespace, **more: Any) -> Tagger:
    """Our tagger; all scores, so that they can be compared."""
    return Tagger.from_pretrained(
        str(bundle.path), runtime="torch", device=options.device, dtype=dtype, dense=True,
        threshold=0.5, num_workers=1, threads=options.threads, **more,
    )  # fmt: skip


def measure_cpu(options: argparse.Namespace, bundle: Bundle, photos: list[Path]) -> dict[str, Any]:
    """Photos a second of the reference and of ours in each number format, in turns."""
    set_fused_attn(False)
    reference = load_model(bundle)
    set_fused_attn(True)
    logits: dict[str, list[torch.Tensor]] = {}

    def plain() -> list[np.ndarray]:
        with torch.inference_mode():
            pixels = (plain_pixels(path, bundle.preset) for path in photos)
            logits["plain"] = [plain_logits(reference, reference.encoder(x)) for x in pixels]
        return [row[0].sigmoid().numpy() for row in logits["plain"]]

    def ours(tagger: Tagger) -> list[np.ndarray]:
        return [np.array(found.dense) for found in tagger.tag(iter(photos))]

    ways: dict[str, Callable[[], list[np.ndarray]]] = {"reference fp32": plain}
    for dtype in options.dtype:
        tagger = tagger_of(bundle, dtype, options)
        ways[f"ours {dtype}"] = partial(ours, tagger)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores: dict[str, list[np.ndarray]] = {}
    for _ in range(options.repeat + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            scores[name] = way()
            seconds[name].append(time.perf_counter() - start)
    table = {}
    for name, times in seconds.items():
        middle = statistics.median(times[1:])
        ratios = [a / b for a, b in zip(seconds["reference fp32"][1:], times[1:], strict=True)]
        table[name] = {
            "photos/s": round(len(photos) / middle, 3),
            "times the reference": round(statistics.median(ratios), 2),
            "largest difference of probability": float(
                f"{np.abs(np.array(scores[name]) - scores['reference fp32']).max():.2g}"
            ),
        }
    return table


def measure_gpu(options: argparse.Namespace, bundle: Bundle, photos: list[Path]) -> dict[str, Any]:
    """JPEGs to tags against the compiled model on tensors that are there, both on the GPU."""
    tagger = tagger_of(bundle, "auto", options)
    runner: Any = tagger.runner
    half, batch = runner.engine.runtime.half, tagger.batch
    alone = torch.compile(load_model(bundle, products=half).cuda())
    size = bundle.preprocess.size
    pixels = torch.randn(batch, 3, size, size, device="cuda")
    rows = torch.from_numpy(bundle_labels(bundle).rows).cuda()
    number = 20 * batch

    def model() -> None:
        with torch.inference_mode(), torch.autocast("cuda", half):
            for _ in range(number // batch):
                alone(pixels, rows)
        torch.cuda.synchronize()

    def jpegs() -> None:
        repeated = (photos[n % len(photos)] for n in range(number))
        for _ in Tagger.from_pretrained(str(bundle.path), device="cuda").tag(repeated):
            pass

    rates = {}
    for name, work in (("compiled model alone", model), ("JPEGs to tags", jpegs)):
        work()
        start = time.perf_counter()
        work()
        rates[name] = round(number / (time.perf_counter() - start), 1)
    fraction = rates["JPEGs to tags"] / rates["compiled model alone"]
    return rates | {"batch": batch, "fraction": round(fraction, 2), "wanted": GPU}


def measure_memory(options: argparse.Namespace, bundle: Bundle) -> dict[str, dict[str, float]]:
    """Peak resident MB of a process that opens the bundle and tags one photo."""
    table = {}
    stored = (bundle.path / WEIGHTS).stat().st_size / 2**20
    for dtype in options.dtype:
        command = [sys.executable, __file__, "--tag-bundle", str(bundle.path), "--dtype", dtype]
        command += ["--threads", str(options.threads), "--device", options.device]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        own = found["peak"] - found["imports"]
        table[dtype] = {
            "peak MB": round(found["peak"]), "imports MB": round(found["imports"]),
            "weights in use MB": round(found["weights"]), "weights stored MB": round(stored),
            "peak without imports, weights in use = 1": round(own / found["weights"], 2),
            "wanted": MEMORY,
        }  # fmt: skip
    return table


def tag_bundle(options: argparse.Namespace) -> dict[str, float]:
    """MB: what imports take, what the model's weights take, and the peak after tagging a photo."""
    bundle = Bundle.open(options.tag_bundle)
    imports = peak_mb()
    tagger = tagger_of(bundle, options.dtype[0], options)
    tagger.tag(Image.effect_mandelbrot(PHOTO, (-2, -1, 0.7, 1), 90).convert("RGB"))
    runner: Any = tagger.runner
    engine = runner.engine
    tensors = [*engine.model.parameters(), *engine.model.buffers()]
    weights = sum(tensor.nbytes for tensor in tensors) + bundle_labels(bundle).rows.nbytes
    return {"imports": imports, "weights": weights / 2**20, "peak": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ram-swin-l")
    parser.add_argument("--set", action="append", default=[], help="override a preset's number")
    parser.add_argument("--labels", type=int, default=4585)
    parser.add_argument("--photos", type=int, default=2, help="photos a turn")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--tag-bundle", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.tag_bundle:
        print(json.dumps(tag_bundle(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(options, Path(folder) / "bundle")
        photos = write_photos(Path(folder), options.photos)
        facts = {
            "command": " ".join(sys.argv),
            "machine": platform.processor() or platform.machine(),
            "bf16 products": "AMX" if torch.cpu._is_amx_tile_supported() else "no AMX",
            "versions": {"torch": torch.__version__, "timm": timm.__version__},
            "memory": measure_memory(options, bundle),
            f"CPU, JPEGs to scores (wanted of the better one: {SPEED})": measure_cpu(
                options, bundle, photos
            ),
            "GPU": measure_gpu(options, bundle, photos)
            if torch.cuda.is_available()
            else "no GPU here",
        }
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
