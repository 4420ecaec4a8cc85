#!/usr/bin/env python3
"""Convert the output of other systems to predictions for `ramctl eval`.

    predictions.py panoptic predictions.json > predictions.jsonl
    predictions.py logits output/ --labels ram_tag_list.txt > predictions.jsonl

panoptic: COCO's panoptic JSON, as ODISE and SEEM write it. mkt: text files, or folders of them,
with what MKT's inference.py prints of a photo each. logits: the folder of the RAM authors'
logits.pth and pred.txt.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv()

import orjson

Row = dict[str, Any]
MKT_TITLE = "Top-10 Predictions:"
# Six characters of a score: where there is an exponent, its digits are lost.
MKT_LINE = re.compile(r"(\S.*?)\s*(-?\d\.\d+)(e.*)?")


def of_panoptic(path: Path) -> Iterator[Row]:
    """The names of the categories of each photo's segments as `tags`.

    Source: `predictions.json` of detectron2's COCOPanopticEvaluator; `file_name` is the mask's.
    """
    document = orjson.loads(path.read_bytes())
    names = {row["id"]: row["name"] for row in document["categories"]}
    photos = {row["id"]: row["file_name"] for row in document.get("images", ())}
    for row in document["annotations"]:
        image = photos.get(row["image_id"]) or PurePosixPath(row["file_name"]).stem
        tags = dict.fromkeys(names[segment["category_id"]] for segment in row["segments_info"])
        yield {"image": image, "tags": list(tags)}


def of_mkt(path: Path) -> Iterator[Row]:
    """The ten scores of the photo of each file."""
    for file in sorted(path.rglob("*.txt")) if path.is_dir() else [path]:
        _, title, ranking = file.read_text("utf-8", "replace").partition(MKT_TITLE)
        if not title:
            raise ValueError(f"{file}: no {MKT_TITLE!r}")
        matches = map(MKT_LINE.fullmatch, filter(None, map(str.strip, ranking.splitlines())))
        scores = {match[1]: 0.0 if match[3] else float(match[2]) for match in matches if match}
        image = file.relative_to(path if path.is_dir() else file.parent).with_suffix("")
        yield {"image": str(image), "scores": scores}


def of_logits(folder: Path, labels: list[str]) -> Iterator[Row]:
    """Rows of `logits.pth`: probabilities (N, C), despite its name; photos are in `pred.txt`.

    Source: the authors' batch_inference.py.
    """
    import torch

    table = torch.load(folder / "logits.pth", map_location="cpu", weights_only=True)
    photos = [line.split(",") for line in (folder / "pred.txt").read_text("utf-8").splitlines()]
    if table.shape != (len(photos), len(labels)):
        shape = " x ".join(map(str, table.shape))
        raise ValueError(f"{shape} numbers for {len(photos)} photos and {len(labels)} labels")
    for number, ((image, *tags), row) in enumerate(zip(photos, table, strict=True)):
        first = {"label_names": labels} if number == 0 else {}
        yield {"image": image, "tags": list(filter(None, tags)), **first, "dense": row.tolist()}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("form", choices=["panoptic", "mkt", "logits"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--labels", type=Path, help="the columns of logits, one a line")
    options = parser.parse_args()
    labels = options.labels.read_text("utf-8").splitlines() if options.labels else []
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        "panoptic": of_panoptic,
        "mkt": of_mkt,
        "logits": lambda path: of_logits(path, labels),
    }
    try:
        for row in readers[options.form](options.file):
            sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.stderr.write(f"{options.file}: not {options.form}: {error!r}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
