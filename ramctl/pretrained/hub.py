"""Find files and folders by name, local or on the Hugging Face hub."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import gaierror

from ramctl.errors import RunProblem, UsageProblem
from ramctl.records.files import move_into_place, naming, open_to_append, part_path, sync_file
from ramctl.records.remote import COPY_BYTES, attempted, open_url

HUB = "hf://"
# The same weights for other frameworks, which are not downloaded.
_FOREIGN = ("*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*")


def local_path(name: str) -> Path:
    """The local folder or file of a path, of `hf://owner/name` or of `hf://owner/name:file`.

    Files of the hub come from its cache where it cannot be reached. UsageProblem for a path that
    does not exist, RunProblem when a download fails.
    """
    if name.startswith(HUB):
        return _fetch(name)
    path = Path(name)
    if not path.exists():
        raise UsageProblem(f"{name}: no such file or folder{hub_hint(name)}")
    return path


def hub_hint(name: str, kind: str = "") -> str:
    """The end of a message about a missing path that looks like a name on the hub."""
    is_title = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
    return f"; on the hub it would be {kind}{HUB}{name}" if is_title else ""


def fetch_folder(repository: str, weights: str) -> Path:
    """The folder of a transformers model in the hub's cache; downloads what is missing.

    The weights come last, so that their presence shows that the download is complete.
    """
    _fetch(f"{HUB}{repository}", (*_FOREIGN, "*.safetensors", "*.bin", "*.pth", "*.pt"))
    return _fetch(f"{HUB}{repository}:{weights}").parent


def download(url: str, target: Path, count: Callable[[int], object]) -> None:
    """Copy the file `hf://owner/name/file` to `target`, which exists only when it is complete.

    After a kill the hub's client starts again; this continues `TARGET.part`. `count` is called with
    numbers of new bytes, first those of the part. FileNotFoundError where the hub has no such file,
    else RunProblem.
    """
    part = part_path(target)
    done = part.stat().st_size if part.exists() else 0
    with open_url(url, COPY_BYTES, done) as source, naming(part), open_to_append(part) as copy:
        count(done)
        while block := source.read(COPY_BYTES):
            copy.write(block)
            count(len(block))
    sync_file(part)
    move_into_place(part, target)


def _fetch(name: str, without: Sequence[str] = _FOREIGN) -> Path:
    repository, _, file = name.removeprefix(HUB).partition(":")
    owner, _, title = repository.partition("/")
    if not owner or not title or "/" in title:
        raise UsageProblem(f"{name}: expected hf://owner/name or hf://owner/name:file")
    from huggingface_hub import constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        disable_progress_bars,
        logging,
    )

    if not sys.stderr.isatty():
        disable_progress_bars()
    logging.set_verbosity_error()  # a line for each of the client's attempts

    def download() -> str:
        try:
            if file:
                return hf_hub_download(repository, file)
            return snapshot_download(repository, ignore_patterns=list(without))
        except (LocalEntryNotFoundError, RepositoryNotFoundError, ValueError) as error:
            if isinstance(error, LocalEntryNotFoundError) and not constants.HF_HUB_OFFLINE:
                if (cause := _failed_connection(error)) is None:
                    raise  # an outage may be over soon
                raise RunProblem(f"{name}: the hub cannot be reached: {cause}") from error
            reason = str(error).strip().partition("\n")[0]
            raise RunProblem(f"{name}: cannot be downloaded: {reason}") from error

    try:
        return Path(attempted(name, download))
    except FileNotFoundError as error:
        raise RunProblem(f"{name}: no such file") from error


def _failed_connection(error: BaseException | None) -> OSError | None:
    """The error behind another one that says that there is no connection.

    The client has tried several times by then.
    """
    while error is not None and not isinstance(error, ConnectionError | gaierror):
        error = error.__cause__ or error.__context__
    return error
