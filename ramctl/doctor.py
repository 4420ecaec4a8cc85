"""`ramctl doctor`: what is installed and found on this machine, and how fast it tags."""

import io
import platform
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import repeat, takewhile
from pathlib import Path

import orjson
from PIL import Image

from ramctl.checkpoints.bundle import (
    EMBEDDED,
    META,
    Bundle,
    embedded_bundle,
    missing_model,
    model_shelf,
)  # fmt: skip
from ramctl.errors import RamctlError
from ramctl.inference.onnx_engine import TORCH, choose_runtime, has_gpu, number_format
from ramctl.parts import EXTRAS, __version__, pip_line
from ramctl.pretrained.known import KNOWN
from ramctl.records.parallel import usable_cores
from ramctl.records.record import JsonObject
from ramctl.records.report import Report
from ramctl.tagging.tagger import Tagger

PACKAGES = (
    "onnxruntime", "numpy", "pillow", "simplejpeg", "tokenizers", "torch", "timm", "transformers",
    "spacy", "scikit-learn",
)  # fmt: skip
SIZE = (1024, 768)  # of the photos that are tagged: what a web page shows


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What `ramctl doctor` is asked for."""

    model: str = EMBEDDED  # whose speed is measured
    seconds: float = 5.0  # of that
    device: str = "auto"
    models: bool = False  # only list these
    json: bool = False


def run(options: DoctorOptions) -> Report:
    """Examine the machine and write what is found to stdout; the report of the run."""
    facts = examine(options.model, 0 if options.models else options.seconds, options.device)
    lines = describe(facts)
    if options.models:
        facts = {name: facts[name] for name in ("models", "known")}
        lines = [line for line in lines if line.startswith(("model", "known"))]
    text = orjson.dumps(facts).decode() if options.json else "\n".join(lines)
    sys.stdout.write(text + "\n")
    return Report("doctor")


def examine(model: str = EMBEDDED, seconds: float = 5.0, device: str = "auto") -> JsonObject:
    """Versions, extras, devices, models, and photos/s measured for so many seconds.

    RamctlError for a model that cannot be opened; 0 seconds measure nothing.
    """
    # The bundles that a bare name finds: embedded, here, and on the shelf.
    metas = sorted([*Path().glob(f"*/{META}"), *model_shelf().glob(f"*/{META}")])
    bundles = [embedded_bundle(), *(meta.parent for meta in metas)]
    versions = {one.name.lower(): one.version for one in distributions()}
    return {
        "ramctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: versions.get(name) for name in PACKAGES},
        "extras": {
            name: {"purpose": extra.purpose, "missing": extra.missing, "install": pip_line(name)}
            for name, extra in EXTRAS.items()
        },
        "devices": _devices(),
        "models": [_model(path) for path in bundles],
        "known": [asdict(one) | {"here": not missing_model(one.name)} for one in KNOWN.values()],
        "speed": measure(model, device, seconds) if seconds else None,
    }


def describe(facts: JsonObject) -> list[str]:
    """The lines for people of what `examine` found."""
    rows = [("ramctl", f"{facts['ramctl']}, Python {facts['python']}, {facts['platform']}")]
    rows += [(name, number or "not installed") for name, number in facts["packages"].items()]
    for name, extra in facts["extras"].items():
        state = f"no: {extra['install']}" if extra["missing"] else "yes"
        rows.append((f"[{name}]", f"{state} ({extra['purpose']})"))
    rows += [("device", device) for device in facts["devices"]]
    for model in facts["models"]:
        size = f"{model.get('bytes', 0) / 1e6:.1f} MB"
        what = model.get("problem") or f"{model['labels']} labels, {size}, {model['runs_in']}"
        measured = f", mAP {model['mAP']}" if model.get("mAP") else ""
        rows.append(("model", f"{model['name']}: {what}{measured}, {model['path']}"))
    for known in facts["known"]:
        state = "here" if known["here"] else f"`ramctl convert {known['name']}`"
        published = f", mAP {known['mAP']} (OpenImages-common)" if known["mAP"] else ""
        rows.append(("known", f"{known['name']}: {state}, {KNOWN[known['name']].offer}{published}"))
    if speed := facts["speed"]:
        rows.append(("speed", "{photos_per_s:.4g} photos/s ({how}; {photos})".format(**speed)))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def measure(model: str, device: str, seconds: float) -> JsonObject:
    """How many photos a second a model tags, decoding included, start-up not."""
    tagger = Tagger.from_pretrained(model, device=device)
    stream = io.BytesIO()
    # No photo comes with the package; what decoding and tagging take depends on the size alone.
    Image.effect_mandelbrot(SIZE, (-2, -1, 0.7, 1), 90).convert("RGB").save(stream, "JPEG")
    photo = stream.getvalue()
    for _ in tagger.tag([photo] * tagger.batch):  # loads the model
        pass
    start = time.perf_counter()
    photos = takewhile(lambda _: time.perf_counter() < start + seconds, repeat(photo))
    n_photos = sum(1 for _ in tagger.tag(photos))
    rate = n_photos / (time.perf_counter() - start)
    what = f"JPEGs of {SIZE[0]}x{SIZE[1]}"
    return {"photos_per_s": round(rate, 2), "how": tagger.description, "photos": what}


def _devices() -> list[str]:
    devices = [f"cpu ({usable_cores()} cores)"]
    if find_spec("torch") is None:
        return devices
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(n_gpus)]
    return devices + ["mps"] * torch.backends.mps.is_available()


def _model(path: Path) -> JsonObject:
    facts: JsonObject = {"name": path.name, "path": str(path.absolute())}
    try:
        bundle = Bundle.open(path)
        chosen = choose_runtime(bundle, "auto", "auto", "auto")
        how = f"onnxruntime {number_format(chosen)}, on the CPU"
        if chosen == TORCH:
            how = f"torch, on the {'GPU' if has_gpu() else 'CPU'}"
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        measured = bundle.meta.get("provenance", {}).get("measured", {})
        facts["mAP"] = measured.get("validation_mAP") if isinstance(measured, dict) else None
        return facts | {"labels": len(bundle.labels), "bytes": size, "runs_in": how}
    except RamctlError as problem:
        return facts | {"problem": problem.message}
