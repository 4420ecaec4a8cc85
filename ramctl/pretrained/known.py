"""Published models with a short name, from the table `known.toml`."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model on the hub: a checkpoint that becomes a bundle, or the folder of a peer."""

    name: str
    repository: str
    file: str  # its weights there
    size: int  # of the weights in bytes, about
    licence: str
    peer: str | None = None  # the KIND of `--model KIND:PATH`; None: it becomes a bundle
    sha256: str | None = None  # of the weights, where it is known
    mAP: float | None = None  # published, on OpenImages-common

    @property
    def offer(self) -> str:
        """Size, source and licence of the download."""
        size = f"{self.size / 1e9:.1f} GB"
        return f"{size} from huggingface.co/{self.repository}, licence {self.licence}"

    @property
    def absence(self) -> str:
        """The message that the model is not on this machine, and how to download it."""
        here = f"; the folder here is ./{self.name}" if Path(self.name).is_dir() else ""
        ways = f"`ramctl convert {self.name}` downloads it, and so does `ramctl tag --download`"
        return f"model {self.name!r} is not on this machine; {ways} ({self.offer}){here}"

    def cached(self) -> Path | None:
        """The path of its weights in the hub's cache, or None."""
        if find_spec("huggingface_hub") is None:
            return None
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, self.file)
        return Path(path) if isinstance(path, str) else None


_TABLE = tomllib.loads((files("ramctl.pretrained") / "known.toml").read_text("utf-8"))
KNOWN = {name: KnownModel(name, **facts) for name, facts in _TABLE.items()}
