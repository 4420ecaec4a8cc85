"""`ramctl doctor`: what is installed and found on this machine, and how fast it tags."""

import io
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import orjson
from PIL import Image

from ramctl import __version__
from ramctl.checkpoints.bundle import EMBEDDED, META, Bundle, embedded_bundle, model_shelf
from ramctl.errors import RamctlError
from ramctl.inference.onnx_engine import TORCH, choose_runtime, has_gpu, number_format
from ramctl.parts import EXTRAS, pip_line
from ramctl.records.files import user_cache
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
    json: bool = False
    command: str = "doctor"
    argv: tuple[str, ...] = ()


def run(options: DoctorOptions) -> Report:
    """Examine the machine and write what is found to stdout; the report of the run."""
    facts = examine(options.model, options.seconds, options.device)
    text = orjson.dumps(facts).decode() if options.json else "\n".join(describe(facts))
    sys.stdout.write(text + "\n")
    return Report("doctor")


def examine(model: str = EMBEDDED, seconds: float = 5.0, device: str = "auto") -> JsonObject:
    """Versions, extras, devices, models, folders, and photos/s measured for so many seconds.

    RamctlError for a model that cannot be opened; 0 seconds measure nothing.
    """
    # The bundles that a bare name finds: embedded, here, and on the shelf.
    metas = sorted([*Path().glob(f"*/{META}"), *model_shelf().glob(f"*/{META}")])
    bundles = [embedded_bundle(), *(meta.parent for meta in metas)]
    return {
        "ramctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {
            name: {"purpose": extra.purpose, "missing": extra.missing, "install": pip_line(name)}
            for name, extra in EXTRAS.items()
        },
        "devices": _devices(),
        "models": [_model(path) for path in bundles],
        "folders": [_folder(purpose, path) for purpose, path in _folders()],
        "speed": measure(Tagger.from_pretrained(model, device=device), seconds)
        if seconds
        else None,
    }


def describe(facts: JsonObject) -> list[str]:
    """The lines for people of what `examine` found."""
    rows = [("ramctl", f"{facts['ramctl']}, Python {facts['python']}, {facts['platform']}")]
    rows += [(name, number or "not installed") for name, number in facts["packages"].items()]
    for name, extra in facts["extras"].items():
        if not extra["missing"]:
            rows.append((f"[{name}]", f"yes: {extra['purpose']}"))
        else:
            rows.append((f"[{name}]", f"no: {extra['install']} ({extra['purpose']})"))
    rows += [("device", device) for device in facts["devices"]]
    for model in facts["models"]:
        what = model.get("problem")
        if not what:
            what = f"{model['labels']} labels, {_size(model['bytes'])}, {model['runs_in']}"
        rows.append(("model", f"{model['name']}: {what}, {model['path']}"))
    for folder in facts["folders"]:
        sizes = f"{_size(folder['bytes'])}, {_size(folder['free_bytes'])} free"
        rows.append((folder["purpose"], f"{folder['path']}: {sizes}"))
    if speed := facts["speed"]:
        what = f"{speed['photos_per_s']:.4g} photos/s ({speed['how']}; {speed['photos']})"
        rows.append(("speed", what))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def measure(tagger: Tagger, seconds: float) -> JsonObject:
    """How many photos a second the tagger tags, decoding included, start-up not."""
    stream = io.BytesIO()
    # No photo comes with the package; what decoding and tagging take depends on the size alone.
    Image.effect_mandelbrot(SIZE, (-2, -1, 0.7, 1), 90).convert("RGB").save(stream, "JPEG")
    photo = stream.getvalue()
    for _ in tagger.tag([photo] * tagger.batch):  # loads the model
        pass
    start = time.perf_counter()
    end = start + seconds

    def photos() -> Iterator[bytes]:
        while time.perf_counter() < end:
            yield photo

    n_photos = sum(1 for _ in tagger.tag(photos()))
    rate = n_photos / (time.perf_counter() - start)
    what = f"JPEGs of {SIZE[0]}x{SIZE[1]}"
    return {"photos_per_s": round(rate, 2), "how": tagger.description, "photos": what}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    devices = [f"cpu ({usable_cores()} cores)"]
    if find_spec("torch") is None:
        return devices
    import torch

    if torch.cuda.is_available():
        names = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        devices += [f"cuda:{index} ({name})" for index, name in enumerate(names)]
    return devices + ["mps"] * torch.backends.mps.is_available()


def _model(path: Path) -> JsonObject:
    facts: JsonObject = {"name": path.name, "path": str(path.absolute())}
    try:
        bundle = Bundle.open(path)
        chosen = choose_runtime(bundle, "auto", "auto", "auto")
        if chosen == TORCH:
            how = "torch, on the GPU" if has_gpu() else "torch, on the CPU"
        else:
            how = f"onnxruntime {number_format(chosen)}, on the CPU"
        return facts | {"labels": len(bundle.labels), "bytes": _bytes(path), "runs_in": how}
    except RamctlError as problem:
        return facts | {"problem": problem.message}


def _folders() -> list[tuple[str, Path]]:
    """Where something is kept that takes space, and what for."""
    folders = [("models", model_shelf()), ("cache", user_cache("text").parent)]
    if find_spec("huggingface_hub"):
        from huggingface_hub.constants import HF_HUB_CACHE

        folders.append(("downloads", Path(HF_HUB_CACHE)))
    return folders


def _folder(purpose: str, path: Path) -> JsonObject:
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    return {"purpose": purpose, "path": str(path), "bytes": _bytes(path), "free_bytes": free}


def _bytes(path: Path) -> int:
    """The size of a folder's files; one behind several links counts once."""
    files = (file.stat() for file in path.rglob("*") if file.is_file())
    return sum({facts.st_ino: facts.st_size for facts in files}.values())


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
