#!/usr/bin/env python3
"""Tagging speed and memory of a large model against a plain fp32 reference of the same weights.

The reference is timm's Swin in fp32 and the tag decoder written plainly: label queries projected
and repeated for every batch, attention by matrix products. All see the same photos in turn, in one
process; figures are medians over `--repeat` batches after one that is not counted. Peak memory is
that of a process of its own that opens the same model as a bundle and tags one batch, against the
size of its weights plus 1 GB. `--runs DIR` also writes all numbers as JSON.

    scripts/bench/model.py --preset ram-swin-l --batch 8 --repeat 3 --threads 2
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
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ramctl.checkpoints.bundle import WEIGHTS, Bundle, BundleWriter
from ramctl.checkpoints.load import write_model
from ramctl.device import Runtime, set_up_cpu
from ramctl.inference.label_set import own_labels
from ramctl.inference.torch_engine import TorchEngine
from ramctl.labels import LABELS, LabelSystem
from ramctl.model.config import Preset, finetuning_preset, load_preset
from ramctl.model.ram import RAM

DESCRIPTIONS = 51  # a label, in RAM++
Parts = tuple[float, float]  # seconds: encoder, everything after it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def plain_logits(model: RAM, features: torch.Tensor) -> torch.Tensor:
    """Tag logits of the encoder's features as the authors' forward computes them."""
    tokens = model.token_projection(features)
    rows = model.labels()
    if model.weighting is not None:  # RAM++, photo by photo
        feature = F.normalize(tokens[:, 0], dim=-1)
        scale = model.weighting.log_scale.exp()
        weights = (scale * feature @ rows.flatten(0, 1).t()).view(len(tokens), *rows.shape[:2])
        rows = torch.stack([(w.softmax(-1)[..., None] * rows).sum(1) for w in weights])
    states = F.relu(model.label_queries.projection(rows))
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
    return model.tag_decoder.shared_head(x).squeeze(-1)


def build(options: argparse.Namespace) -> tuple[RAM, Preset]:
    """The preset's model without its captioning branch, random weights, at fine-tuning size."""
    preset = finetuning_preset(load_preset(options.preset, options.set))
    preset = replace(preset, model=replace(preset.model, captioning=None))
    described = preset.model.labels.kind == "descriptions"
    model = RAM(
        preset.model, image_size=preset.preprocess.size, n_labels=options.labels,
        description_counts=[DESCRIPTIONS] * options.labels if described else None,
    )  # fmt: skip
    with torch.no_grad():
        model.labels.text.normal_()
    return model.eval(), preset


def timed(encode: Callable[[], torch.Tensor], rest: Callable[[torch.Tensor], object]) -> Parts:
    """Wall seconds of the encoder and of what follows."""
    start = time.perf_counter()
    features = encode()
    middle = time.perf_counter()
    rest(features)
    return middle - start, time.perf_counter() - middle


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Seconds a batch of the reference and of ours in each number format, alternating."""
    timm.layers.set_fused_attn(False)
    reference, preset = build(options)
    timm.layers.set_fused_attn(True)
    size = preset.preprocess.size
    photos = torch.randn(options.batch, 3, size, size)
    seconds: dict[str, list[Parts]] = {"reference fp32": []}
    ours, prepared, differences = {}, {}, {}
    with torch.inference_mode():
        for name in options.dtype:
            model, _ = build(options)
            model.load_state_dict(reference.state_dict())
            model.to(DTYPES[name])
            ours[name], prepared[name] = model, model.prepare_labels(model.labels())
            seconds[f"ours {name}"] = []
        for _ in range(options.repeat + 1):
            seconds["reference fp32"].append(
                timed(lambda: reference.encoder(photos), lambda f: plain_logits(reference, f))
            )
            for name, model in ours.items():
                given = photos.to(DTYPES[name])
                times = timed(
                    lambda model=model, given=given: model.encoder(given),
                    lambda f, m=model, p=prepared[name]: m.tag_logits(m.encode(f), p),
                )
                seconds[f"ours {name}"].append(times)
        expected = plain_logits(reference, reference.encoder(photos[:1]))
        for name, model in ours.items():
            encoded = model.encode(model.encoder(photos[:1].to(DTYPES[name])))
            difference = model.tag_logits(encoded, prepared[name]).float() - expected
            differences[name] = difference.abs().max().item()
    return {
        "seconds a batch [encoder, rest]": seconds,
        "medians": medians(seconds, options.batch),
        "largest difference of logits": differences,
    }


def medians(seconds: dict[str, list[Parts]], batch: int) -> dict[str, dict[str, float]]:
    """Of each: images/s, seconds of both parts, and how many times faster than the reference."""
    table: dict[str, dict[str, float]] = {}
    for name, times in seconds.items():
        encoder, rest = (statistics.median(part) for part in zip(*times[1:], strict=True))
        total = statistics.median(sum(parts) for parts in times[1:])
        row = {"images/s": batch / total, "encoder s": encoder, "decoder s": rest, "all s": total}
        base = table.get("reference fp32", row)
        for part in ("encoder", "decoder", "all"):
            row[f"{part}: times faster"] = base[f"{part} s"] / row[f"{part} s"]
        table[name] = {key: round(value, 4) for key, value in row.items()}
    return table


def peak_memory(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Peak resident MB of a process that opens the model as a bundle and tags a batch."""
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        model, preset = build(options)
        with BundleWriter(bundle) as writer:
            writer.meta = write_model(writer.path, preset, model)
            LabelSystem.from_tags([f"tag {n}" for n in range(options.labels)]).write(
                writer.path / LABELS
            )
        del model
        weights = (bundle / WEIGHTS).stat().st_size / 2**20
        for name in options.dtype:
            command = [sys.executable, __file__, "--tag-bundle", str(bundle), "--dtype", name]
            command += ["--batch", str(options.batch), "--threads", str(options.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peak = float(done.stdout)
            table[name] = {
                "peak MB": round(peak), "weights MB": round(weights),
                "beyond the weights MB": round(peak - weights), "allowed beyond MB": 1024,
            }  # fmt: skip
    return table


def tag_bundle(options: argparse.Namespace) -> float:
    """Peak resident MB of this process after tagging one batch with a bundle."""
    bundle = Bundle.open(options.tag_bundle)
    rows = own_labels(bundle).rows
    set_up_cpu(None)
    runtime = Runtime.choose("cpu", options.dtype[0])
    engine = TorchEngine.open(bundle, runtime, rows=rows, fold=True)
    size = bundle.preprocess.size
    engine.scores(np.zeros((options.batch, 3, size, size), np.float32))
    # Not ru_maxrss: it is handed down from the parent process.
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ram-swin-l")
    parser.add_argument("--set", action="append", default=[], help="override a preset's number")
    parser.add_argument("--labels", type=int, default=4585)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-only", action="store_true", help="do not time anything")
    parser.add_argument("--runs", type=Path, help="folder for the record of this run")
    parser.add_argument("--tag-bundle", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.tag_bundle:
        print(tag_bundle(options))
        return
    amx = torch.cpu._is_amx_tile_supported()
    facts = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "bf16 matrix units (AMX)": amx,
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        **({} if options.memory_only else measure(options)),
        "memory": peak_memory(options),
    }
    if "bf16" in options.dtype and not amx:
        facts["note"] = (
            "without AMX a bf16 product runs on the vector units at little more than fp32's speed: "
            "2.2 times the reference is out of reach here, and `--dtype auto` takes fp32"
        )
    shown = {key: value for key, value in facts.items() if not key.startswith("seconds")}
    print(json.dumps(shown, indent=2))
    if options.runs is not None:
        options.runs.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y-%m-%d')}-model-{options.preset}.json"
        (options.runs / name).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
