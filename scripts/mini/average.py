#!/usr/bin/env python3
"""Write a bundle whose weights are the mean of those of several, one trained on from the other.

    scripts/mini/average.py --out OUT BUNDLE BUNDLE...

Labels, settings and texts are the first bundle's; of labels that another lacks it counts alone.
Biases are without what thresholds were calibrated to: train calibrates them anew. The wider valley
of a mean (Wortsman et al. 2022, arXiv 2203.05482) keeps what each has learnt.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ramctl.checkpoints.bundle import LABEL_GRAPH, PHOTO_GRAPH, WEIGHTS, Bundle, BundleWriter

LABELS = "labels."


def weights_of(bundle: Bundle) -> dict[str, torch.Tensor]:
    """The bundle's tensors in double precision."""
    return {name: value.double() for name, value in load_file(bundle.path / WEIGHTS).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    args = parser.parse_args()
    first, *others = map(Bundle.open, args.bundles)
    own = weights_of(first)
    total = {name: value.clone() for name, value in own.items()}
    for other in others:
        places = {tag: place for place, tag in enumerate(other.labels.tags)}
        rows = np.array([places.get(tag, -1) for tag in first.labels.tags])
        known = torch.from_numpy(rows >= 0)
        for name, value in weights_of(other).items():
            if name.startswith(LABELS):
                value = value[torch.from_numpy(rows)]
                value[~known] = own[name][~known]
            total[name] += value
    stored = load_file(first.path / WEIGHTS)
    n_bundles = len(args.bundles)
    means = {n: (value / n_bundles).to(stored[n].dtype) for n, value in total.items()}
    write_with(first, means, args.out)


def write_with(bundle: Bundle, tensors: dict[str, torch.Tensor], out: Path) -> None:
    """Write the bundle with other weights, without its graphs."""
    with BundleWriter(out) as writer:
        writer.copy_files(bundle, without={WEIGHTS, PHOTO_GRAPH, LABEL_GRAPH})
        save_file(tensors, writer.path / WEIGHTS, metadata={"format": "pt"})
        writer.meta = bundle.meta | {"dtype": "fp32"}


if __name__ == "__main__":
    main()
