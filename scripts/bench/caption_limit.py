#!/usr/bin/env python3
"""How good captions are by what they are worth to the model: chooses `thresholds.caption`.

    scripts/bench/caption_limit.py --model model/ --root photos photos/flickr8k-dev.jsonl
    scripts/bench/caption_limit.py --model model/ --judge eval/judge.py --root eval \
        eval/judged_other.jsonl
    scripts/bench/caption_limit.py --model model/ --set -1.35

For each limit the fraction of captions that it keeps, and CIDEr of those and of the others (by
pycocoevalcap). With judge.py and judged photos also the fraction of these whose
labels are all right or doubtful. `--set` writes a limit into bundle.json; `none` takes it out.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("pycocoevalcap")

import numpy as np
from captions import words
from pycocoevalcap.cider.cider_scorer import CiderScorer

from ramctl import Tagger
from ramctl.checkpoints.bundle import META, Bundle, resolve_model, write_meta
from ramctl.engine.caption_writer import CaptionWriter


class Drafts(CaptionWriter):
    """Gives every caption, after what it is worth and a space."""

    def write(self, *inputs: Any, **options: Any) -> list[str | None]:
        return [f"{worth} {text}" for text, worth in self.drafts(*inputs, **options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--set", help="write this limit into the bundle")
    parser.add_argument("--limits", type=float, nargs="+", default=np.arange(-2.2, -0.95, 0.1))
    parser.add_argument("--judge", type=Path)
    parser.add_argument("records", nargs="*", help="JSONL with captions (or caption) by people")
    args = parser.parse_args()
    folder = resolve_model(args.model)
    if args.set is not None:
        meta = json.loads((folder / META).read_text("utf-8"))
        meta["thresholds"].pop("caption", None)
        if args.set != "none":
            meta["thresholds"]["caption"] = float(args.set)
        write_meta(folder, {k: v for k, v in meta.items() if k not in ("format", "files")})
    tagger = Tagger.from_pretrained(args.model, caption=True)
    runner: Any = tagger.runner
    runner.writer = writer = Drafts(Bundle.open(folder))
    if args.judge is not None:
        sys.path.append(str(args.judge.parent))
        from judge import fold
    for name in args.records:
        rows = [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
        truth = [row.get("captions") or [row["caption"]] for row in rows]
        cider, worths, right = CiderScorer(), [], []
        photos = tagger.tag(str(args.root / row["image"]) for row in rows)
        for result, row, captions in zip(photos, rows, truth, strict=True):
            value, _, text = (result.caption or "").partition(" ")
            worths.append(float(value))
            cider += (words(text), [words(caption) for caption in captions])
            if args.judge is not None:
                accepted = {fold(tag) for tag in [*row["right"], *row["doubtful"]]}
                right.append({fold(tag) for tag in writer.parsed([text])[0].tags} <= accepted)
        _, scores = cider.compute_score()
        worth, ciders = np.array(worths), 100 * np.array(scores)
        print(f"{name}: {len(rows)} photos, CIDEr {ciders.mean():.1f}")
        for limit in args.limits:
            kept = worth >= limit
            means = (
                f"{some.mean():5.1f}" if some.size else "-"
                for some in (ciders[kept], ciders[~kept])
            )
            line = "{:6.2f}  {:5.1%} kept, CIDEr {}; dropped {}".format(limit, kept.mean(), *means)
            print(line + (f"; all right {np.array(right)[kept].mean():.1%}" if right else ""))


if __name__ == "__main__":
    main()
