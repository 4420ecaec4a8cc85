#!/usr/bin/env python3
"""Measures what a photo costs one core: the embedded model, whole, against others' image encoders.

    scripts/bench/encoders.py PHOTO...

The others have random weights in the sizes that are published, and get pixels: reading photos, and
comparing them with words, is not in their time. Prints processor time relative to `mini`.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import timm
import torch
from measuring import core_seconds
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ramctl import Tagger

ROUNDS = 5
CLIP_B16 = CLIPVisionConfig(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
    patch_size=16, image_size=224, projection_dim=512,
)  # fmt: skip
SWIN_L = "swin_large_patch4_window12_384"  # of RAM and RAM++


def seconds(work: Callable[[], object]) -> float:
    """The median processor time of the work, after one round that does not count."""
    return median([core_seconds(work) for _ in range(1 + ROUNDS)][1:])


def main() -> None:
    torch.set_num_threads(1)
    photos = sys.argv[1:]
    tagger = Tagger.from_pretrained("mini", num_workers=1, threads=1)
    mini = seconds(lambda: tagger.tag(photos)) / len(photos)
    print(f"mini, photos to tags  1 ({1000 * mini:.0f} ms)")
    encoders = {
        "CLIP ViT-B/16, 224 px": (CLIPVisionModelWithProjection(CLIP_B16), 224),
        "Swin-L, 384 px": (timm.create_model(SWIN_L, num_classes=0), 384),
    }
    for name, (encoder, size) in encoders.items():
        work = partial(encoder.eval(), torch.randn(1, 3, size, size))
        with torch.inference_mode():
            ratio = seconds(work) / mini
        print(f"{name:21} {ratio:.0f}")


if __name__ == "__main__":
    main()
