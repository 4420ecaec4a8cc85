"""Grounding DINO: boxes of labels in a photo, and the best box's score as the label's.

By transformers' port, or for the authors' checkpoints by the package groundingdino-py; their text
encoder's tokenizer is in a folder `bert-base-uncased` beside the checkpoint or in its own folder.
Q boxes that the model proposes, T tokens of a prompt (at most 256), L labels.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GroundingDinoForObjectDetection

from ramctl.checkpoints.weights import (
    count_blocks,
    load_strictly,
    only_weight_file,
    read_checkpoint,
    tensors_of,
)
from ramctl.device import Runtime
from ramctl.errors import RunProblem, UsageProblem
from ramctl.peers.base import Peer, Photo, Scores, pixel_values, widen_strip
from ramctl.pretrained import transformers_folder

Box = tuple[float, float, float, float]
NOWHERE: Box = (0.0, 0.0, 1.0, 1.0)

MAX_TOKENS = 256  # of a prompt; fixed in the model
# Where the text encoder cuts a prompt into phrases that do not see each other. transformers' port
# looks for these ids, whatever the tokenizer says.
_DELIMITERS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
_TEXT_FOLDER = "bert-base-uncased"
# Left over from training, and a buffer that newer BERTs do not store.
_UNUSED = ("label_enc.weight", "bert.embeddings.position_ids")
# By the width of the first stage and the side of the attention window.
_BACKBONES = {
    (96, 7): "swin_T_224_1k",
    (128, 7): "swin_B_224_22k",
    (128, 12): "swin_B_384_22k",
    (192, 7): "swin_L_224_22k",
    (192, 12): "swin_L_384_22k",
}
_WITHOUT_DELIMITERS = str.maketrans({".": " ", "?": " "})


class Detection(NamedTuple):
    """A label's best box, `[x0, y0, x1, y1]` as shares of width and height, and its score."""

    box: Box
    score: float


@dataclass(slots=True)
class Prompt:
    """One text for the detector, and what it asks for: `dog. traffic light.`"""

    text: str = ""
    labels: list[int] = field(default_factory=list)  # positions in the list of labels
    # The first token of each and the one after the last, without the full stop.
    spans: list[tuple[int, int]] = field(default_factory=list)


def pack_prompts(labels: Sequence[str], tokenize: Callable[[str], list[int]]) -> list[Prompt]:
    """Prompts, filled up in the order of the labels, that hold every label whole.

    `tokenize` leaves out [CLS] and [SEP]. A label without a token (`...`) is in no prompt; one
    that does not fit into a prompt raises UsageProblem.
    """
    prompts: list[Prompt] = []
    end = MAX_TOKENS  # of the last prompt's tokens
    for index, label in enumerate(labels):
        phrase = " ".join(label.translate(_WITHOUT_DELIMITERS).lower().split())
        n_tokens = len(tokenize(phrase))
        if n_tokens + 3 > MAX_TOKENS:  # with [CLS], its full stop and [SEP]
            raise UsageProblem(f"label {label[:40]!r}...: longer than one prompt of the detector")
        if n_tokens == 0:
            continue
        if end + n_tokens + 2 > MAX_TOKENS:
            prompts.append(Prompt())
            end = 1
        prompt = prompts[-1]
        prompt.text += f" {phrase}." if prompt.text else f"{phrase}."
        prompt.labels.append(index)
        prompt.spans.append((end, end + n_tokens))
        end += n_tokens + 1
    return prompts


class GroundingDino(Peer):
    """Score: the highest of any box: the label's tokens' mean probability, as the authors' on COCO.

    Labels that do not fit into one prompt make several, each a pass of the model. One photo at a
    time: padding a smaller one would change its scores.
    """

    kind = "grounding-dino"
    threshold = 0.35  # box_threshold of the authors' demo
    needs_fp32 = True
    _backend: "PortBackend | OriginalBackend"

    def __init__(self, path: Path, labels: Sequence[str], runtime: Runtime) -> None:
        """`path`: a folder of transformers, or the authors' `.pth` or its folder."""
        super().__init__(path, labels, runtime, batch=1)
        if path.is_file() or any(path.glob("*.pth")):
            self._backend = OriginalBackend(path, runtime)
        else:
            self._backend = PortBackend(path, runtime)
        self._prompts = pack_prompts(self.labels, self._tokenize)

    def _tokenize(self, text: str) -> list[int]:
        return self._backend.tokenizer(text, add_special_tokens=False)["input_ids"]

    def detect(self, photo: Photo, labels: Sequence[str]) -> list[Detection]:
        """The best box of each of the labels; the whole photo and 0 without a token."""
        return self._detect(photo, pack_prompts(labels, self._tokenize), len(labels))

    def score_batch(self, photos: Sequence[Photo]) -> Scores:
        rows = [self._detect(photo, self._prompts, len(self.labels)) for photo in photos]
        return np.array([[label.score for label in row] for row in rows], np.float32)

    @torch.inference_mode()
    def _detect(self, photo: Photo, prompts: Sequence[Prompt], n_labels: int) -> list[Detection]:
        found = [Detection(NOWHERE, 0.0)] * n_labels
        if not prompts:
            return found
        prepared = self._backend.prepare(widen_strip(photo))
        for prompt in prompts:
            with self._runtime.precision():
                tokens, boxes = self._backend.detect(prepared, prompt.text)
            means = [tokens[:, start:end].float().mean(1) for start, end in prompt.spans]
            scores = torch.stack(means, 1)  # (Q, L)
            centre, size = boxes.float()[scores.argmax(0)].split(2, dim=1)
            corners = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 1)
            values = scores.amax(0).tolist()
            for label, box, value in zip(prompt.labels, corners.tolist(), values, strict=True):
                found[label] = Detection(tuple(box), value)
        return found


class PortBackend:
    """transformers' own port: a folder of `GroundingDinoForObjectDetection`."""

    def __init__(self, folder: Path, runtime: Runtime) -> None:
        self._runtime = runtime
        self.tokenizer = transformers_folder.load_tokenizer(folder)
        if any(self.tokenizer.convert_tokens_to_ids(t) != i for t, i in _DELIMITERS.items()):
            raise RunProblem(f"{folder}: the tokenizer is not bert-base-uncased's")
        self._processor = transformers_folder.load_image_processor(folder)
        self._model: Any = transformers_folder.load_pretrained(
            GroundingDinoForObjectDetection, folder, runtime.device, kinds=("grounding-dino",),
            disable_custom_kernels=True,  # a kernel would be fetched from the hub
        )  # fmt: skip

    def prepare(self, photo: Photo) -> Tensor:
        """The photo as `detect` takes it: shorter side 800, longer at most 1,333."""
        return pixel_values(self._processor, [photo], self._runtime)

    def detect(self, prepared: Tensor, text: str) -> tuple[Tensor, Tensor]:
        """Token probabilities (Q, T) and boxes (Q, 4) as centre, width and height in shares."""
        tokens = self.tokenizer([text], return_tensors="pt").to(self._runtime.device)
        outputs = self._model(pixel_values=prepared, **tokens)
        return outputs.logits[0].sigmoid(), outputs.pred_boxes[0]


class OriginalBackend:
    """An original `.pth`, or a folder that holds one."""

    def __init__(self, path: Path, runtime: Runtime) -> None:
        checkpoint = only_weight_file(path, (".pth",))
        weights = tensors_of(read_checkpoint(checkpoint))
        folder = checkpoint.parent
        names = ("tokenizer.json", "vocab.txt")
        places = (folder / _TEXT_FOLDER, folder)
        text_folder = next((p for p in places if any((p / n).is_file() for n in names)), None)
        if text_folder is None:
            raise RunProblem(f"{folder}: no {' or '.join(names)}, here or in {_TEXT_FOLDER}")
        self._runtime = runtime
        self.tokenizer = transformers_folder.load_tokenizer(text_folder)
        model = _build(weights, text_folder, self.tokenizer, checkpoint)
        loaded = load_strictly(model, weights, checkpoint, unused=_UNUSED)
        self._model = loaded.eval().to(runtime.device)
        import groundingdino.datasets.transforms as steps  # here, because the package is an extra

        # Source: the authors' demo.
        normalise = steps.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        resize = steps.RandomResize([800], max_size=1333)
        self._transform = steps.Compose([resize, steps.ToTensor(), normalise])

    def prepare(self, photo: Photo) -> Tensor:
        return self._transform(Image.fromarray(photo), None)[0].to(self._runtime.device)

    def detect(self, prepared: Tensor, text: str) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings(action="ignore"):  # of libraries newer than the package
            outputs = self._model(prepared[None], captions=[text])
        return outputs["pred_logits"][0].sigmoid(), outputs["pred_boxes"][0]


def with_phrase_mask(bert_model: Any) -> Any:
    """The BERT, which now also takes a mask (B, T, T) that is true where a token may look.

    The package's own wrapper needs functions that transformers 5 no longer has.
    """

    def make_additive(bert: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        allowed = named["attention_mask"]
        if allowed.dim() == 3:
            # The eager attention would add a boolean mask as 0 and 1.
            blocked = torch.finfo(bert.dtype).min * (~allowed).to(bert.dtype)
            named["attention_mask"] = blocked[:, None]  # (B, 1, T, T)
        return inputs, named

    bert_model.register_forward_pre_hook(make_additive, with_kwargs=True)
    return bert_model


def _build(
    weights: Mapping[str, Tensor], text_folder: Path, tokenizer: Any, checkpoint: Path
) -> nn.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            from groundingdino.models import build_model
            from groundingdino.models.GroundingDINO import groundingdino
    except ImportError as error:
        message = "an original checkpoint needs the extra ramctl[grounding-dino]"
        raise RunProblem(f"{checkpoint}: {message}: {error}") from error
    settings, bert = _settings(weights, checkpoint), _bert(weights, text_folder)
    given = SimpleNamespace(
        get_tokenlizer=lambda _: tokenizer, get_pretrained_language_model=lambda _: bert
    )
    # The package would look for a text encoder on the hub, and wrap it in its own way.
    wrap: dict[str, Any] = {"BertModelWarper": with_phrase_mask, "get_tokenlizer": given}
    with mock.patch.multiple(groundingdino, **wrap):
        return build_model(settings)


def _settings(weights: Mapping[str, Tensor], checkpoint: Path) -> SimpleNamespace:
    """The package's own settings with the sizes that the checkpoint has."""
    from groundingdino.config import GroundingDINO_SwinT_OGC as defaults

    try:
        stem = weights["backbone.0.patch_embed.proj.weight"]
        table = weights["backbone.0.layers.0.blocks.0.attn.relative_position_bias_table"]
        sizes: dict[str, Any] = {
            "backbone": _BACKBONES[(len(stem), (round(len(table) ** 0.5) + 1) // 2)],
            "hidden_dim": len(weights["feat_map.weight"]),
            "num_queries": len(weights["transformer.tgt_embed.weight"]),
            "dim_feedforward": len(weights["transformer.encoder.layers.0.linear1.weight"]),
        }
    except KeyError as error:
        raise RunProblem(f"{checkpoint}: not a Grounding DINO with a Swin ({error})") from error
    usual = {name: value for name, value in vars(defaults).items() if not name.startswith("_")}
    sizes["enc_layers"] = count_blocks(weights, "transformer.encoder.layers.")
    sizes["dec_layers"] = count_blocks(weights, "transformer.decoder.layers.")
    sizes |= {"use_checkpoint": False, "use_transformer_ckpt": False}
    return SimpleNamespace(**usual | sizes)


def _bert(weights: Mapping[str, Tensor], text_folder: Path) -> nn.Module:
    """A BERT of the checkpoint's size; its weights come with the rest."""
    from transformers import BertConfig, BertModel

    vocabulary, width = weights["bert.embeddings.word_embeddings.weight"].shape
    config: dict[str, Any] = {"num_attention_heads": width // 64}
    if (text_folder / "config.json").is_file():
        config |= transformers_folder.read_config(text_folder)
    config |= {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(weights, "bert.encoder.layer."),
        "intermediate_size": len(weights["bert.encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": len(weights["bert.embeddings.position_embeddings.weight"]),
    }
    return BertModel(BertConfig(**config))
