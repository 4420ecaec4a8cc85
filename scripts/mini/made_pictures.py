#!/usr/bin/env python3
"""Make pictures that show nothing or next to nothing, and print what is right of each as records.

    scripts/mini/made_pictures.py --out made --seed 0 --number 40 --labels labels.jsonl > made.jsonl

Blank, noise, gradient, stripes, page of text, chart, window of a program, line drawing. Everything
that is no tag of such a picture is a verified negative: a tagger must learn that nobody is on it.
"""

import argparse
import json
import os
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
from PIL import Image, ImageDraw

from ramctl.records.labels import Labels

SIZE = 224
WORDS = (
    "the", "of", "and", "a", "to", "in", "is", "you", "that", "it", "he", "was", "for", "on", "are",
    "as", "with", "his", "they", "at", "be", "this",
)  # fmt: skip
Picture = Image.Image


def colour(rng: random.Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return (rng.randint(low, high), rng.randint(low, high), rng.randint(low, high))


def blank(rng: random.Random) -> Picture:
    return Image.new("RGB", (SIZE, SIZE), colour(rng))


def noise(rng: random.Random) -> Picture:
    cells = rng.choice([14, 56, 224])
    values = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (cells, cells, 3))
    return Image.fromarray(values.astype(np.uint8)).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def gradient(rng: random.Random) -> Picture:
    ramp = np.linspace(0, 1, SIZE)[None, :, None]
    first, last = np.array(colour(rng)), np.array(colour(rng))
    values = np.broadcast_to(first + ramp * (last - first), (SIZE, SIZE, 3)).astype(np.uint8)
    return Image.fromarray(np.rot90(values, rng.randrange(4)).copy())


def stripes(rng: random.Random) -> Picture:
    picture = Image.new("RGB", (SIZE, SIZE), colour(rng))
    draw, width = ImageDraw.Draw(picture), rng.randint(4, 30)
    paint = colour(rng)
    for start in range(0, SIZE, 2 * width):
        draw.rectangle([start, 0, start + width, SIZE], fill=paint)
    return picture.rotate(90 * rng.randrange(2))


def page(rng: random.Random) -> Picture:
    picture = Image.new("RGB", (SIZE, SIZE), colour(rng, 235))
    draw = ImageDraw.Draw(picture)
    for y in range(12, SIZE - 12, rng.choice([10, 12, 15])):
        draw.text((14, y), " ".join(rng.choices(WORDS, k=9)), fill=colour(rng, 0, 60))
    return picture


def chart(rng: random.Random) -> Picture:
    picture = Image.new("RGB", (SIZE, SIZE), colour(rng, 240))
    draw = ImageDraw.Draw(picture)
    draw.line([20, 10, 20, 204, 214, 204], fill=(40, 40, 40), width=2)
    n_bars, paint = rng.randint(4, 10), colour(rng, 0, 200)
    for bar in range(n_bars):
        left = 26 + bar * 186 // n_bars
        draw.rectangle([left, rng.randint(20, 190), left + 110 // n_bars, 203], fill=paint)
    return picture


def window(rng: random.Random) -> Picture:
    picture = Image.new("RGB", (SIZE, SIZE), colour(rng, 40, 120))
    draw = ImageDraw.Draw(picture)
    draw.rectangle([15, 20, 209, 204], fill=(245, 245, 245))
    draw.rectangle([15, 20, 209, 36], fill=colour(rng, 60, 180))
    draw.text((22, 22), "Untitled", fill=(255, 255, 255))
    for y in range(44, 190, 16):
        draw.rectangle([22, y, 22 + rng.randint(30, 90), y + 9], outline=(120, 120, 120))
        draw.text((120, y - 1), rng.choice(WORDS), fill=(30, 30, 30))
    return picture


def drawing(rng: random.Random) -> Picture:
    picture = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(4, 14)):
        points = [rng.randint(5, SIZE - 5) for _ in range(2 * rng.randint(2, 6))]
        draw.line(points, fill=(0, 0, 0), width=rng.randint(1, 4))
    return picture


MAKERS = {
    blank: [],
    noise: ["pattern"],
    gradient: [],
    stripes: ["stripe", "striped", "pattern", "line"],
    page: ["text", "page", "paper", "document", "letter", "writing", "white", "printed"],
    chart: ["chart", "graph", "diagram", "line", "bar"],
    window: ["screenshot", "window", "text", "software", "screen"],
    drawing: ["drawing", "line", "line drawing", "sketch", "black", "white", "monochrome", "art"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--root", type=Path, default=Path(), help="what names begin at")
    args = parser.parse_args()
    labels, rng = Labels.read(args.labels), random.Random(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    makers = list(MAKERS)
    for number in range(args.number):
        make = makers[number % len(makers)]
        path = args.out / f"{make.__name__}-{args.seed}-{number:02}.png"
        make(rng).save(path)
        right = [tag for tag in MAKERS[make] if labels.ids(tag)]
        # Colours and looks may fit any picture: they are neither right nor wrong.
        open_ones = {label.tag for label in labels if label.kind in ("attribute", "scene")}
        negatives = [tag for tag in labels.tags if tag not in open_ones | set(right)]
        image = os.path.relpath(path.resolve(), args.root.resolve())
        print(json.dumps({"image": image, "tags": right, "negatives": negatives}))


if __name__ == "__main__":
    main()
