#!/usr/bin/env python3
"""Make a web page that tags photos in the browser: nothing is sent anywhere, no server is needed.

    scripts/web/build.py page             # then open page/index.html, or put the folder on any host

The folder has the page, onnxruntime-web, and in `data.js` the model with all that it needs. A page
that was opened from a file may not read the files beside it, so they are in that script, in base64.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from venv_python import use_venv

use_venv("onnx")

import numpy as np
import onnx

from ramctl.checkpoints.bundle import GRAPH, TEXT_FOLDER, WEIGHTS, Bundle, resolve_model
from ramctl.decide import calibration, salience, selection
from ramctl.decide.shortlist import read_shortlist
from ramctl.decide.thresholds import LabelSet, bundle_labels
from ramctl.engine.label_rows import SHARPNESS
from ramctl.engine.log_odds import MIN_P
from ramctl.errors import RamctlError
from ramctl.text.static_table import StaticTextEncoder

HERE = Path(__file__).parent
RUNTIME = "onnxruntime-web@1.30.0"
SCRIPT, LOADER = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs"
WASM = LOADER.replace(".mjs", ".wasm")
PAGE = ("index.html", "mini.js", "page.js")


def fetch_runtime(package: Path | None, folder: Path) -> None:
    """The three files of onnxruntime-web, from its package: a .tgz, or from npm's index."""
    if package is None:
        if shutil.which("npm") is None:
            sys.exit(f"needs npm to get {RUNTIME}; or --runtime FILE, the package as a .tgz")
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder), RUNTIME]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"needs {RUNTIME}, which npm cannot get: {done.stderr.strip()[-200:]}")
        package = folder / done.stdout.split()[-1]
    with tarfile.open(package) as archive:
        for name in (SCRIPT, LOADER, WASM):
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            (folder / name).write_bytes(member.read())


def tables(bundle: Bundle, labels: LabelSet) -> dict[str, Any]:
    """What is known of the labels and of the photos, as JSON has it: null for no number."""
    known = labels.calibration
    if known is None or known.salience is None:
        sys.exit(f"{bundle.path}: does not know what its scores are worth")
    count = len(labels.labels)
    offsets, most = read_shortlist(bundle, labels) or (np.zeros(count, np.float32), count)
    photo = bundle.preprocess
    return {
        "thresholds": labels.thresholds.tolist(), "slopes": known.slopes.tolist(),
        "intercepts": [None if v != v else v for v in known.offsets.tolist()],
        "floors": known.min_scores.tolist(), "shortlistOffsets": offsets.tolist(),
        "labels": [[label.tag, *label.synonyms] for label in labels.labels],
        "parents": [label.parents for label in labels.labels],
        "sets": [label.one_of for label in labels.labels],
        "wholes": [label.part_of for label in labels.labels],
        "bends": labels.uses_salience.tolist(), "minTags": selection.MIN_TAGS,
        "validated": [one.validated for one in labels.labels],
        "shortlist": most, "sharpness": SHARPNESS, "size": photo.size, "mean": photo.mean,
        "std": photo.std, "salience": known.salience.to_json(),
        "usual": {"slope": known.slope, "intercept": known.intercept, "base": known.base},
        "closest": MIN_P, "sure": calibration.LISTED_LOG_ODDS, "named": salience.N_LIKELIEST,
        "furthest": salience.MAX_LOG_ODDS, "leastShare": salience.MIN_FRACTION,
        "usualChance": salience.USUAL_PROBABILITY, "first": salience.FIRST,
    }  # fmt: skip


def build(target: Path, model: str, package: Path | None) -> None:
    """Write the folder."""
    bundle = Bundle.open(resolve_model(model))
    labels = bundle_labels(bundle)
    text = StaticTextEncoder.read(bundle.path / TEXT_FOLDER)
    words = json.loads(text.tokenizer_json)["model"]["vocab"]
    about = tables(bundle, labels) | {"words": sorted(words, key=words.__getitem__)}
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fetch_runtime(package, folder)
        # In fp32: in the browser int8 takes half as long again, and is rounded otherwise than here.
        for file in (GRAPH, WEIGHTS):
            shutil.copy(bundle.path / file, folder)  # onnx reads no weights that are hard-linked
        graph = onnx.load(folder / GRAPH)
        shutil.copy(folder / SCRIPT, target)
        files = {
            "loader": (folder / LOADER).read_bytes(),
            "wasm": (folder / WASM).read_bytes(),
            "graph": graph.SerializeToString(),  # with its weights, which were in another file
            "rows": labels.rows.astype("<f2").tobytes(),  # as they are stored
            "vectors": text.vectors.tobytes(),
            "scales": text.scales.astype("<f2").tobytes(),
        }
    coded = {name: b64encode(content).decode() for name, content in files.items()}
    script = f"const FILES = {json.dumps(coded)};\nconst ABOUT = {json.dumps(about)};\n"
    (target / "data.js").write_text(script, "utf-8")
    for name in PAGE:
        shutil.copy(HERE / name, target)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    print(f"{target / 'index.html'}: {size:.0f} MB in all", file=sys.stderr)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("target", type=Path, help="folder to write; it may be there")
    parser.add_argument("--model", default="mini", help="bundle (default: mini)")
    parser.add_argument("--runtime", type=Path, help=f"{RUNTIME} as a .tgz, instead of npm's index")
    options = parser.parse_args()
    try:
        build(options.target, options.model, options.runtime)
    except RamctlError as problem:
        sys.exit(problem.message)


if __name__ == "__main__":
    main()
