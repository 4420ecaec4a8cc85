"""`ramctl doctor`: report packages, extras, devices, models and the endpoint of captions."""

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

import orjson

from ramctl.captioning.endpoint import Endpoint
from ramctl.checkpoints.bundle import (
    EMBEDDED,
    META,
    Bundle,
    bundle_folders,
    embedded_bundle,
    missing_model,
)  # fmt: skip
from ramctl.engine.onnx_engine import TORCH, choose_runtime, has_gpu, number_format
from ramctl.engine.peers import GROUP as TAGGERS
from ramctl.errors import RamctlError, escaped
from ramctl.parts import EXTRAS, __version__, pip_line, plugins
from ramctl.pretrained.known import KNOWN
from ramctl.readers.caption_formats import GROUP as READERS
from ramctl.records.outputs import write_to_stdout
from ramctl.records.parallel import usable_cores
from ramctl.records.record import JsonObject, listed_names
from ramctl.records.report import Report

PACKAGES = (
    "onnxruntime", "numpy", "pillow", "simplejpeg", "tokenizers", "torch", "timm", "transformers",
    "spacy", "scikit-learn", "openai",
)  # fmt: skip
SIGHT = {True: "see photos", False: "do not see photos", None: "not known to see photos"}


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """The options of `ramctl doctor`."""

    models: bool = False  # only list models
    json: bool = False


def run(options: DoctorOptions) -> Report:
    """Examine the machine and write the result to stdout; return the report of the run."""
    facts = examine(options.models)
    lines = [orjson.dumps(facts).decode()] if options.json else map(escaped, describe(facts))
    write_to_stdout("".join(f"{line}\n" for line in lines))
    return Report("doctor")


def examine(only_models: bool = False) -> JsonObject:
    """Collect versions, extras, devices, and models: those here, and known ones to download."""
    # The bundles that a bare name finds: embedded, in this folder, and in the folder of models.
    paths = (meta.parent for folder in bundle_folders() for meta in folder.glob(f"*/{META}"))
    # A folder here never stands for a known model.
    by_name = (p for p in paths if p.parent != Path() or p.name not in (EMBEDDED, *KNOWN))
    bundles = [embedded_bundle(), *sorted(by_name)]
    models = {
        "models": [_model(path) for path in bundles],
        "known": [asdict(m) | {"here": not missing_model(m.name)} for m in KNOWN.values()],
    }
    if only_models:
        return models
    versions = {package.name.lower(): package.version for package in distributions()}
    return {
        "ramctl": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: versions.get(name) for name in PACKAGES},
        "extras": {
            name: {"purpose": extra.purpose, "missing": extra.missing, "install": pip_line(name)}
            for name, extra in EXTRAS.items()
        },
        "plugins": {
            option.format(name): entry.dist.name
            for option, group in (("--model {}:PATH", TAGGERS), ("--from {}", READERS))
            for name, entry in sorted(plugins(group).items())
        },
        "devices": _devices(),
        "endpoint": None if EXTRAS["caption"].missing else _endpoint(),
    } | models


def describe(facts: JsonObject) -> list[str]:
    """Format the facts from `examine` as lines of text."""
    rows = []
    if "ramctl" in facts:
        rows = [("ramctl", f"{facts['ramctl']}, Python {facts['python']}, {facts['platform']}")]
    packages, extras = facts.get("packages", {}), facts.get("extras", {})
    rows += [(name, number or "not installed") for name, number in packages.items()]
    for name, extra in extras.items():
        state = f"no: {extra['install']}" if extra["missing"] else "yes"
        rows.append((f"[{name}]", f"{state} ({extra['purpose']})"))
    rows += [("plug-in", f"{name} ({of})") for name, of in facts.get("plugins", {}).items()]
    rows += [("device", device) for device in facts.get("devices", ())]
    if endpoint := facts.get("endpoint"):
        rows.append(("endpoint", _endpoint_line(endpoint)))
    for model in facts["models"]:
        size = f"{model.get('bytes', 0) / 1e6:.1f} MB"
        what = model.get("problem") or f"{model['labels']} labels, {size}, {model['runs_in']}"
        measured = f", mAP {model['mAP']} on {model['measured_on']}" if model.get("mAP") else ""
        rows.append(("model", f"{model['name']}: {what}{measured}, {model['path']}"))
        if model.get("licences"):
            licence = "Apache-2.0, as this package; " if model["name"] == EMBEDDED else ""
            rows.append(("licence", f"{model['name']}: {licence}trained on {model['licences']}"))
    for known in facts["known"]:
        state = "here" if known["here"] else f"`ramctl convert {known['name']}`"
        published = f", mAP {known['mAP']} (OpenImages-common)" if known["mAP"] else ""
        rows.append(("known", f"{known['name']}: {state}, {KNOWN[known['name']].offer}{published}"))
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {text}" for name, text in rows]


def _devices() -> list[str]:
    devices = [f"cpu ({usable_cores()} cores)"]
    if find_spec("torch") is None:
        return devices
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices += [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(n_gpus)]
    return devices + ["mps"] * torch.backends.mps.is_available()


def _endpoint() -> JsonObject:
    """The endpoint of `ramctl caption`, and whether each of its models sees photos."""
    try:
        endpoint = Endpoint()
        return {"url": endpoint.url, "models": endpoint.models()}
    except RamctlError as problem:
        return {"problem": problem.message}


def _endpoint_line(facts: JsonObject) -> str:
    parts = [facts.get("problem") or f"{facts['url']} answers"]
    for sees, words in SIGHT.items():
        names = [name for name, known in facts.get("models", {}).items() if known is sees]
        parts += [f"{words}: {listed_names(names)}"] if names else []
    return "; ".join(parts)


def _model(path: Path) -> JsonObject:
    facts: JsonObject = {"name": path.name, "path": str(path.absolute())}
    try:
        bundle = Bundle.open(path)
        chosen = choose_runtime(bundle, "auto", "auto", "auto")
        how = f"onnxruntime {number_format(chosen)}, on the CPU"
        if chosen == TORCH:
            how = f"torch, on the {'GPU' if has_gpu() else 'CPU'}"
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        provenance = bundle.meta.get("provenance", {})
        facts["licences"], measured = provenance.get("licences"), provenance.get("measured")
        if isinstance(measured, dict) and (mAP := measured.get("validation_mAP")):
            photos, name = measured.get("validation_photos"), f"{measured.get('validation')}"
            facts |= {"mAP": mAP, "measured_on": f"{photos} photos of {Path(name).name}"}
        return facts | {"labels": len(bundle.labels), "bytes": size, "runs_in": how}
    except RamctlError as problem:
        return facts | {"problem": problem.message}
