"""transformers' own Grounding DINO."""

from pathlib import Path
from typing import Any

from torch import Tensor

from ramctl.device import Runtime
from ramctl.errors import RunProblem
from ramctl.peers.base import Photo
from ramctl.peers.pixels import pixel_values
from ramctl.pretrained.transformers_folder import (
    load_image_processor,
    load_pretrained,
    load_tokenizer,
)

# The library's phrase limits are these ids, whatever the tokenizer says.
_LIMITS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


class PortBackend:
    """A folder of `GroundingDinoForObjectDetection`."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        from transformers import GroundingDinoForObjectDetection

        self._runtime = runtime
        self._tokenizer = load_tokenizer(folder)
        if any(self._tokenizer.convert_tokens_to_ids(t) != i for t, i in _LIMITS.items()):
            raise RunProblem(f"{folder}: the tokenizer is not bert-base-uncased's")
        self._processor = load_image_processor(folder)
        self._model: Any = load_pretrained(
            GroundingDinoForObjectDetection,
            folder,
            runtime.device,
            kinds=("grounding-dino",),
            disable_custom_kernels=True,  # a kernel would be fetched from the hub
        )

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prepare(self, photo: Photo) -> Tensor:
        return pixel_values(self._processor, [photo], self._runtime)

    def detect(self, prepared: Any, text: str) -> tuple[Tensor, Tensor]:
        tokens = self._tokenizer([text], return_tensors="pt").to(self._runtime.device)
        outputs = self._model(pixel_values=prepared, **tokens)
        return outputs.logits[0].sigmoid(), outputs.pred_boxes[0]
