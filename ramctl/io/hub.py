"""Files by a name that says they are fetched: `hf://owner/name` or `hf://owner/name:file`."""

from pathlib import Path

from ramctl.errors import RunProblem, UsageProblem

SCHEME = "hf://"


def is_remote(name: str) -> bool:
    """Whether the name asks for a download."""
    return name.startswith(SCHEME)


def local_path(name: str) -> Path:
    """The local file or folder of a name, fetched first if it says `hf://`.

    Raises UsageProblem for a name without owner, RunProblem when the hub cannot be reached.
    """
    if not is_remote(name):
        return Path(name)
    repository, _, file = name.removeprefix(SCHEME).partition(":")
    if repository.count("/") != 1:
        raise UsageProblem(f"{name}: expected hf://owner/name or hf://owner/name:file")
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError as error:
        raise RunProblem(f"{name}: fetching needs the package huggingface_hub") from error
    try:
        if file:
            return Path(hf_hub_download(repository, file))
        return Path(snapshot_download(repository))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunProblem(f"{name}: cannot be fetched: {reason}") from error
