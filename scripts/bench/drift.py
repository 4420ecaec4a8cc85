#!/usr/bin/env python3
"""The change of scores and mAP by each shortcut of tagging, against fp32 in torch.

    scripts/bench/drift.py --model mini --data ../shared/data/eval --maps scripts/reproduce/maps

Shortcuts are chosen on the dev photos; the evaluation sets are only reported. Each set is a file
SET.jsonl with SET_classes.txt beside it; classes that are no labels are asked for as new words.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import ROOT, use_venv

use_venv()

import numpy as np
from measuring import SHARED, run_ramctl

from ramctl.errors import RecordProblem
from ramctl.records.jsonl import unread_records
from ramctl.records.record import Record
from ramctl.tagging.tagger import Tagger

SETS = ("flickr8k_dev", "coco80_val", "flickr8k_test", "voc5_val")
# name -> options of the tagger, and whether JPEGs are decoded at full size
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "torch fp32, full decoding": ({"runtime": "torch", "dtype": "fp32"}, True),
    "graph fp32, full decoding": ({"runtime": "onnx", "dtype": "fp32"}, True),
    "graph fp32": ({"runtime": "onnx", "dtype": "fp32"}, False),
    "torch bf16": ({"runtime": "torch", "dtype": "bf16"}, False),
    "graph int8": ({"runtime": "onnx", "dtype": "int8"}, False),
}


def predict(
    given: argparse.Namespace, name: str, way: tuple[dict[str, Any], bool], out: Path
) -> np.ndarray:
    """Scores (photos, labels), written to `out` as `ramctl tag --dense` writes them."""
    options, full = way
    words = f"+{given.data / name}_classes.txt"
    tagger = Tagger.from_pretrained(
        given.model, labels=words, dense=True, threads=1, device="cpu", **options
    )
    if full:
        tagger.runner.target = None
    with (given.data / f"{name}.jsonl").open("rb") as stream:
        records = [
            r
            for make in unread_records(stream, name, given.data, "tag")
            if isinstance(r := make(), Record)
        ]
    records = records[:: max(1, len(records) // given.photos)] if given.photos else records
    batches = (records[i : i + tagger.batch] for i in range(0, len(records), tagger.batch))
    rows: list[Any] = []
    with out.open("w", encoding="utf-8") as stream:
        for outcomes in tagger.stage(batches):
            for outcome in outcomes:
                if isinstance(outcome, RecordProblem):
                    raise outcome
                first = {} if rows else {"label_names": tagger.labels.tags}
                row = {"image": outcome["image"], "dense": list(outcome["dense"])}
                stream.write(json.dumps(row | first) + "\n")
                rows.append(row["dense"])
    return np.array(rows)


def mean_average_precision(given: argparse.Namespace, name: str, predictions: Path) -> float:
    """mAP as `ramctl eval` gives it."""
    known = given.maps / f"{name.split('_')[0]}.tsv"
    truth, classes = given.data / f"{name}.jsonl", given.data / f"{name}_classes.txt"
    mapped = ["--map", known] if known.is_file() else []
    asked = ["-q", predictions, "--truth", truth, "--classes", classes, *mapped]
    return float(json.loads(run_ramctl("eval", *asked).output)["mAP"])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "eval")
    parser.add_argument("--maps", type=Path, default=ROOT / "scripts" / "reproduce" / "maps")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--photos", type=int, help="of each set, evenly spread [default: all]")
    given = parser.parse_args()
    print("| set | | mAP | against the reference | mean drift | largest |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.sets:
            reference, best = None, 0.0
            for title, way in WAYS.items():
                out = Path(folder) / "predictions.jsonl"
                scores = predict(given, name, way, out)
                value = mean_average_precision(given, name, out)
                if reference is None:
                    reference, best = scores, value
                moved = np.abs(scores - reference)
                print(
                    f"| {name} | {title} | {value:.4f} | {value - best:+.4f} "
                    f"| {moved.mean():.6f} | {moved.max():.4f} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
