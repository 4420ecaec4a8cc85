#!/usr/bin/env python3
"""Tagging speed of a large model against a plain fp32 reference of the same weights, in one run.

The reference is timm's Swin in fp32 and the tag decoder written plainly: label queries projected
and repeated for every batch, attention by matrix products. Both see the same photos in turn;
figures are medians. `--runs DIR` also writes them as JSON.

    scripts/bench/model.py --preset ram-swin-l --batch 8 --repeat 3 --dtype bf16
"""

import argparse
import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ramctl.model.build import build_ram
from ramctl.model.config import finetuning_preset, load_preset
from ramctl.model.ram import RAM


def plain_logits(model: RAM, photos: torch.Tensor) -> torch.Tensor:
    """Tag logits as the authors' forward computes them."""
    features = model.encoder(photos)
    tokens = model.token_projection(features)
    states = F.relu(model.label_queries.projection(model.labels.text))
    x = states[None].repeat(len(photos), 1, 1)
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


def build(options: argparse.Namespace) -> tuple[RAM, int]:
    """The preset's model without its captioning branch, random weights, at fine-tuning size."""
    preset = finetuning_preset(load_preset(options.preset))
    size = preset.preprocess.size
    config = replace(preset.model, captioning=None)
    model = build_ram(config, image_size=size, n_labels=options.labels).eval()
    with torch.no_grad():
        model.labels.text.normal_()
    return model, size


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Seconds a batch: encoder and decoder, reference and ours, alternating."""
    timm.layers.set_fused_attn(False)
    reference, size = build(options)
    timm.layers.set_fused_attn(True)
    ours, _ = build(options)
    ours.load_state_dict(reference.state_dict())
    dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
    ours = ours.to(dtype)
    photos = torch.randn(options.batch, 3, size, size)
    seconds: dict[str, list[tuple[float, float]]] = {
        name: [] for name in ("reference", "ours", "reference encoder", "ours encoder")
    }
    with torch.inference_mode():
        labels = ours.prepare_labels(ours.labels())
        for _ in range(options.repeat + 1):
            seconds["reference"].append(timed(lambda: plain_logits(reference, photos)))
            seconds["ours"].append(timed(lambda: ours(photos.to(dtype), labels)))
            seconds["reference encoder"].append(timed(lambda: reference.encoder(photos)))
            seconds["ours encoder"].append(timed(lambda: ours.encoder(photos.to(dtype))))
        difference = plain_logits(reference, photos) - ours(photos.to(dtype), labels).tag_logits
    return {
        "seconds [wall, processor]": seconds,
        "wall": ratios({name: [wall for wall, _ in times[1:]] for name, times in seconds.items()}),
        "processor": ratios(
            {name: [cpu for _, cpu in times[1:]] for name, times in seconds.items()}
        ),
        "largest difference of logits": difference.abs().max().item(),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median seconds a batch, and how many times faster ours is, in all and by part."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    reference, ours = median["reference"], median["ours"]
    reference_decoder = reference - median["reference encoder"]
    return median | {
        "ratio": reference / ours,
        "encoder ratio": median["reference encoder"] / median["ours encoder"],
        "decoder ratio": reference_decoder / (ours - median["ours encoder"]),
    }


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and processor seconds of a call; the latter bear a busy machine better."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="ram-swin-l")
    parser.add_argument("--labels", type=int, default=4585)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="folder for the record of this run")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    facts = {
        "command": " ".join(sys.argv),
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        **measure(options),
    }
    print(json.dumps(facts, indent=2))
    if options.runs is not None:
        options.runs.mkdir(parents=True, exist_ok=True)
        name = f"{time.strftime('%Y-%m-%d')}-model-{options.preset}-{options.dtype}.json"
        (options.runs / name).write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
