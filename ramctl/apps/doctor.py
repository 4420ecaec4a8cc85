"""`ramctl doctor`: report packages, extras, devices, the endpoint of captions and models."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from ramctl import __version__
from ramctl.captions.endpoint import Endpoint
from ramctl.checkpoints.bundle import META, Bundle, bundle_folders, embedded_bundle, find_bundle
from ramctl.checkpoints.hub import KNOWN
from ramctl.errors import RamctlError, escaped
from ramctl.inference.onnx_engine import TORCH, choose_runtime, has_gpu
from ramctl.records.extras import EXTRAS, pip_line
from ramctl.records.outputs import write_to_stdout
from ramctl.records.parallel import usable_cores
from ramctl.records.record import listed_names
from ramctl.records.report import Report

PACKAGES = (
    "onnxruntime", "numpy", "pillow", "tokenizers", "torch", "timm", "transformers", "spacy",
    "scikit-learn", "openai",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """The options of `ramctl doctor`, which has none."""


def run(options: DoctorOptions) -> Report:
    """Examine the machine and write the result to stdout; return the report of the run."""
    rows = [*_facts()]
    width = max(len(name) for name, _ in rows)
    write_to_stdout("".join(f"{escaped(f'{name:{width}}  {text}')}\n" for name, text in rows))
    return Report("doctor")


def _facts() -> Iterator[tuple[str, str]]:
    yield "ramctl", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"
    versions = {package.name.lower(): package.version for package in distributions()}
    for name in PACKAGES:
        yield name, versions.get(name, "not installed")
    for name, extra in EXTRAS.items():
        state = f"no: {pip_line(name)}" if extra.missing else "yes"
        yield f"[{name}]", f"{state} ({extra.purpose})"
    for device in _devices():
        yield "device", device
    if not EXTRAS["caption"].missing:
        yield "endpoint", _endpoint()
    # The bundles that a bare name finds: embedded, in this folder, and in the folder of models.
    paths = (meta.parent for folder in bundle_folders() for meta in folder.glob(f"*/{META}"))
    for path in (embedded_bundle(), *sorted(paths)):
        yield "model", f"{path.name}: {_model(path)}, {path.absolute()}"
    for name, known in KNOWN.items():
        state = "here" if find_bundle(name) else f"`ramctl convert {name}`"
        published = f", mAP {known.mAP} (OpenImages-common)" if known.mAP else ""
        yield "known", f"{name}: {state}, {known.offer}{published}"


def _devices() -> Iterator[str]:
    yield f"cpu ({usable_cores()} cores)"
    if find_spec("torch") is None:
        return
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield f"cuda:{index} ({torch.cuda.get_device_name(index)})"
    if torch.backends.mps.is_available():
        yield "mps"


def _endpoint() -> str:
    """Whether the endpoint of `ramctl caption` answers, and its models."""
    try:
        endpoint = Endpoint()
        return f"{endpoint.url} answers: {listed_names(endpoint.models()) or 'no models'}"
    except RamctlError as problem:
        return problem.message


def _model(path: Path) -> str:
    try:
        bundle = Bundle.open(path)
        chosen = choose_runtime(bundle, "auto", "auto", "auto")
    except RamctlError as problem:
        return problem.message
    how = f"onnxruntime {bundle.dtype}, on the CPU"
    if chosen == TORCH:
        how = f"torch, on the {'GPU' if has_gpu() else 'CPU'}"
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return f"{len(bundle.labels)} labels, {size / 1e6:.1f} MB, {how}"
