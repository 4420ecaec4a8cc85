#!/usr/bin/env python3
"""`ramctl search`: how often captions find their photo, copies each other, and what answers cost.

scripts/bench/search.py recall RECORDS           of records with captions and embeddings
scripts/bench/search.py copies RECORDS           changed copies of the photos of a tar
scripts/bench/search.py speed --photos 250000    beside a bare product in single precision
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import numpy as np
from measuring import peak_mb
from numpy.typing import NDArray
from PIL import Image

from ramctl import Bundle, PhotoSearch, Tagger
from ramctl.checkpoints.bundle import resolve_model
from ramctl.photos.decoding import load_photo
from ramctl.records.jsonl import dumps
from ramctl.tagging.embedding import PhotoAxes

REPEATS = 5


def recall(records: Path) -> None:
    """Print how often a caption finds its own photo among the first."""
    search, ranks = PhotoSearch(records), []
    for record in map(json.loads, records.open()):
        for caption in record["captions"]:
            names = [found.image for found in search.words(caption, 10)]
            ranks.append(names.index(record["image"]) if record["image"] in names else 10)
    shares = {f"recall at {n}": f"{np.mean(np.array(ranks) < n):.3f}" for n in (1, 5, 10)}
    print(json.dumps({"photos": len(search), "captions": len(ranks)} | shares))


def _jpeg(photo: Image.Image, quality: int) -> bytes:
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=quality)
    return content.getvalue()


def _resized(photo: Image.Image, factor: float) -> Image.Image:
    return photo.resize((round(photo.width * factor), round(photo.height * factor)))


def _cut(photo: Image.Image, share: float) -> Image.Image:
    x, y = round(photo.width * share), round(photo.height * share)
    return photo.crop((x, y, photo.width - x, photo.height - y))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "1.6 times as large": lambda photo: _jpeg(_resized(photo, 1.6), 85),
    "half as large": lambda photo: _jpeg(_resized(photo, 0.5), 90),
    "JPEG of quality 40": lambda photo: _jpeg(photo, 40),
    "3 % cut off each side": lambda photo: _jpeg(_cut(photo, 0.03), 90),
    "6 % cut off each side": lambda photo: _jpeg(_cut(photo, 0.06), 90),
    "15 % brighter": lambda photo: _jpeg(photo.point(lambda x: min(255, round(1.15 * x))), 90),
    "grey": lambda photo: _jpeg(photo.convert("L"), 90),
}


def written(path: Path, names: Iterable[str], embeddings: Iterable[str]) -> Path:
    """Records with these embeddings."""
    with path.open("wb") as stream:
        for name, embedding in zip(names, embeddings, strict=True):
            stream.write(dumps({"image": name, "tags": [], "embedding": embedding}))
    return path


def embeddings_of(scores: Iterable[NDArray[Any]]) -> list[str]:
    """The embeddings of scores (L,)."""
    axes = PhotoAxes.from_bundle(Bundle.open(resolve_model("mini")))
    return [axes.encode(row) for row in scores]


def copies(records: Path) -> None:
    """Print how many copies are put with their photo, and with what else."""
    names = [str(records.parent / json.loads(line)["image"]) for line in records.open()]
    tagger = Tagger.from_pretrained("mini", dense=True)
    originals = embeddings_of(np.array(one.dense) for one in tagger.tag(names))
    with tempfile.TemporaryDirectory() as folder:

        def groups(changed: dict[str, bytes]) -> list[list[str]]:
            """Groups of names, in which a copy is called `copy of` its photo."""
            files = {str(Path(folder, f"{n}.jpg")): name for n, name in enumerate(changed)}
            for file, name in files.items():
                Path(file).write_bytes(changed[name])
            copied = embeddings_of(np.array(one.dense) for one in tagger.tag([*files]))
            vectors = written(Path(folder) / "tags.jsonl", [*names, *files], [*originals, *copied])
            return [
                [f"copy of {files[one]}" if one in files else one for one in group]
                for group in PhotoSearch(vectors).duplicates()
            ]

        print(json.dumps({"photos": len(names), "groups without copies": groups({})}))
        for what, change in CHANGES.items():
            some = {name: change(load_photo(name)) for name in names[::4]}
            found = groups(some)
            together = sum(f"copy of {name}" in group for group in found for name in group)
            wrong = sum(len({one.removeprefix("copy of ") for one in group}) - 1 for group in found)
            print(
                json.dumps({"change": what, "copies": len(some), "found": together, "wrong": wrong})
            )


def speed(n_photos: int) -> None:
    """Print seconds of answers, and their ratio to a product of vectors in single precision."""
    axes, rng = (
        PhotoAxes.from_bundle(Bundle.open(resolve_model("mini"))).axes,
        np.random.default_rng(0),
    )
    some = embeddings_of(1 / (1 + np.exp(-rng.normal(size=(4096, axes.shape[1])) @ axes.T)))
    with tempfile.TemporaryDirectory() as folder:
        names = (f"photos/{place:08}.jpg" for place in range(n_photos))
        embeddings = (some[place % len(some)] for place in range(n_photos))
        file = written(Path(folder) / "tags.jsonl", names, embeddings)
        size = file.stat().st_size
        seconds = {"opened": _least(lambda: PhotoSearch(file))}
        search = PhotoSearch(file)
        search.words("a dog on a beach")  # reads the text encoder
        seconds["words"] = _least(lambda: search.words("a dog on a beach"))
        peak = peak_mb()
        seconds["like"] = _least(lambda: search.like(f"photos/{n_photos // 2:08}.jpg"))
    wide = rng.normal(size=(n_photos, axes.shape[1])).astype(np.float32)
    bare = _least(lambda: wide @ wide[0])
    print(json.dumps({"photos": n_photos, "MB": size // 2**20, "peak MB": round(peak)}))
    for what, taken in seconds.items():
        print(json.dumps({"what": what, "s": round(taken, 3), "ratio": round(taken / bare, 1)}))


def _least(work: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("recall")
    asked.add_argument("records", type=Path)
    asked = commands.add_parser("copies")
    asked.add_argument("records", type=Path)
    asked = commands.add_parser("speed")
    asked.add_argument("--photos", type=int, default=250_000)
    args = parser.parse_args()
    if args.command == "recall":
        recall(args.records)
    elif args.command == "copies":
        copies(args.records)
    else:
        speed(args.photos)


if __name__ == "__main__":
    main()
