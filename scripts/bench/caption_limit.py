#!/usr/bin/env python3
"""What captions are worth by their likelihood, to choose `thresholds.caption` of a bundle.

    scripts/bench/caption_limit.py --model model/ --root photos photos/flickr8k-dev.jsonl
    scripts/bench/caption_limit.py --model model/ --set -1.35

For each limit the share of captions that it keeps, and CIDEr of those and of the others (by
pycocoevalcap). `--set` writes one into bundle.json; `none` takes it out.
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
from ramctl.inference.torch_engine import CaptionWriter


class Drafts(CaptionWriter):
    """Gives every caption, after its likelihood and a space."""

    def write(self, *inputs: Any, **options: Any) -> list[str | None]:
        return [f"{likely} {text}" for text, likely in self.drafts(*inputs, **options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--set", help="write this limit into the bundle")
    parser.add_argument("--limits", type=float, nargs="+", default=np.arange(-1.6, -0.95, 0.05))
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
    scorer: Any = tagger.scorer
    scorer._writer = Drafts(Bundle.open(folder))
    for name in args.records:
        rows = [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
        truth = [row.get("captions") or [row["caption"]] for row in rows]
        cider, likelihoods = CiderScorer(), []
        photos = tagger.tag(str(args.root / row["image"]) for row in rows)
        for result, captions in zip(photos, truth, strict=True):
            likelihood, _, text = (result.caption or "").partition(" ")
            likelihoods.append(float(likelihood))
            cider += (words(text), [words(caption) for caption in captions])
        _, scores = cider.compute_score()
        likely, ciders = np.array(likelihoods), 100 * np.array(scores)
        print(f"{name}: {len(rows)} photos, CIDEr {ciders.mean():.1f}")
        for limit in args.limits:
            kept = likely >= limit
            mean = [
                f"{ciders[some].mean():5.1f}" if some.any() else "    -" for some in (kept, ~kept)
            ]
            print(f"{limit:6.2f}  {kept.mean():5.1%} kept, CIDEr {mean[0]}; dropped {mean[1]}")


if __name__ == "__main__":
    main()
