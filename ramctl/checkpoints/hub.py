"""Files and folders by name, local or on the Hugging Face hub; published models by short names."""

import re
from pathlib import Path
from typing import NamedTuple

from ramctl.errors import RunProblem, UsageProblem

HUB = "hf://"
# The same weights for other frameworks, which are not downloaded.
_FOREIGN = ["*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*"]


class KnownModel(NamedTuple):
    """A checkpoint on the hub that `convert` makes a bundle of, with the --arch of its name."""

    repository: str
    file: str
    size: int  # of the file in bytes, about
    sha256: str | None = None  # of the file, where it is known
    mAP: float | None = None  # the paper's table 2, OpenImages-common

    @property
    def offer(self) -> str:
        """Size, source and licence of the download."""
        return f"{self.size / 1e9:.1f} GB from huggingface.co/{self.repository}, licence Apache-2.0"


KNOWN = {
    "ram": KnownModel(
        "xinyu1205/recognize_anything_model", "ram_swin_large_14m.pth", 5_630_000_000,
        "15c729c793af28b9d107c69f85836a1356d76ea830d4714699fb62e55fcc08ed", 0.865,
    ),
    "ram-plus": KnownModel(
        "xinyu1205/recognize-anything-plus-model", "ram_plus_swin_large_14m.pth", 3_010_210_801,
        "497c178836ba66698ca226c7895317e6e800034be986452dbd2593298d50e87d",
    ),
    "tag2text": KnownModel(
        "xinyu1205/recognize_anything_model", "tag2text_swin_14m.pth", 4_480_000_000, mAP=0.834
    ),
}  # fmt: skip


def local_path(name: str, remedy: str = "") -> Path:
    """The local folder or file of a path, of `hf://owner/name` or of `hf://owner/name:file`.

    Files of the hub are kept in its cache, and come from there where it cannot be reached.
    UsageProblem for a path that does not exist, RunProblem when a download fails; `remedy` ends
    their messages.
    """
    if name.startswith(HUB):
        return _fetch(name, remedy)
    path = Path(name)
    if not path.exists():
        raise UsageProblem(f"{name}: no such file or folder{hub_hint(name)}{remedy}")
    return path


def hub_hint(name: str) -> str:
    """The end of a message about a missing path that looks like a name on the hub."""
    is_title = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
    return f"; on the hub it would be {HUB}{name}" if is_title else ""


def _fetch(name: str, remedy: str) -> Path:
    repository, _, file = name.removeprefix(HUB).partition(":")
    if not re.fullmatch("[^/]+/[^/]+", repository):
        raise UsageProblem(f"{name}: expected hf://owner/name or hf://owner/name:file")
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        if file:
            return Path(hf_hub_download(repository, file))
        return Path(snapshot_download(repository, ignore_patterns=_FOREIGN))
    except Exception as error:  # the client's, and those of its HTTP library
        reason = str(error).strip().partition("\n")[0]
        raise RunProblem(f"{name}: cannot be downloaded: {reason}{remedy}") from error
