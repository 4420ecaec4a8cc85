#!/usr/bin/env python3
"""Put features of photos of all kinds into a bundle, by which `ramctl fit` knows its own.

    scripts/mini/reference.py --model MODEL --root PHOTOS --caption-limit=X RECORDS...

An even sample of the records' photos, PHOTOS of them, at the model's own size: the mean of the
encoder's tokens, in half precision. How sure of its words a caption must be, for `tag --caption`,
is put in too.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("torch")

import numpy as np
import torch
from own_vectors import photos_of, read_notes

from ramctl.checkpoints.bundle import REFERENCE, Bundle, BundleWriter
from ramctl.checkpoints.load import load_model
from ramctl.model.device import set_up_cpu

PHOTOS = 480


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--model", "--root"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--caption-limit", type=float, required=True)
    parser.add_argument("records", type=Path, nargs="+")
    args = parser.parse_args()
    set_up_cpu(None)
    bundle = Bundle.open(args.model)
    notes = [note for path in args.records for note in read_notes(path, args.root)]
    sample = [notes[i] for i in np.linspace(0, len(notes) - 1, PHOTOS).astype(int).tolist()]
    model = load_model(bundle, captioning=False)
    with torch.inference_mode():
        batches = photos_of(sample, args.root, bundle.preprocess)
        features = torch.cat([model.encoder(batch).mean(1) for batch in batches])
    with BundleWriter(args.model) as writer:
        writer.copy_files(bundle, without={REFERENCE})
        np.save(writer.path / REFERENCE, features.numpy().astype(np.float16))
        limits = bundle.meta["thresholds"] | {"caption": args.caption_limit}
        writer.meta = bundle.meta | {"thresholds": limits}


if __name__ == "__main__":
    main()
