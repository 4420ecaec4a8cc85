"""Names of folders and files, local or on the Hugging Face hub."""

import re
import sys
from pathlib import Path

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.remote import attempted

HUB = "hf://"
# The same weights for other frameworks: not downloaded.
_FOREIGN = ["*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*"]


def local_path(name: str) -> Path:
    """The folder or file of a path, of `hf://owner/name` or of `hf://owner/name:file`.

    The last two come from the hub's cache where the hub cannot be reached. UsageProblem when
    nothing is at a path, RunProblem when a download fails.
    """
    if name.startswith(HUB):
        return _fetch(name)
    path = Path(name)
    if not path.exists():
        is_title = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
        hint = f"; on the hub it would be {HUB}{name}" if is_title else ""
        raise UsageProblem(f"{name}: no such file or folder{hint}")
    return path


def _fetch(name: str) -> Path:
    repository, _, file = name.removeprefix(HUB).partition(":")
    owner, _, title = repository.partition("/")
    if not owner or not title or "/" in title:
        raise UsageProblem(f"{name}: expected hf://owner/name or hf://owner/name:file")
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()

    def download() -> str:
        try:
            if file:
                return hf_hub_download(repository, file)
            return snapshot_download(repository, ignore_patterns=_FOREIGN)
        except (LocalEntryNotFoundError, RepositoryNotFoundError, ValueError) as error:
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                raise  # an outage may be over soon
            reason = str(error).strip().partition("\n")[0]
            raise RunProblem(f"{name}: cannot be downloaded: {reason}") from error

    try:
        return Path(attempted(name, download))
    except FileNotFoundError as error:
        raise RunProblem(f"{name}: no such file") from error
