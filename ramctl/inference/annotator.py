"""Where the model looked for each tag, and what it says about the photo: boxes and captions.

B photos, T tokens, G tag word pieces. Tags and scores are not its business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import load_caption_tokenizer
from ramctl.inference.label_set import LabelSet
from ramctl.inference.predictor import Pixels
from ramctl.inference.regions import View, heat_maps, label_boxes
from ramctl.inference.torch_predictor import TorchPredictor
from ramctl.model.generation import Decoding, Ends
from ramctl.model.ram import Encoded

BEAMS = 3  # authors' tag2text.py
LONGEST = 30  # word pieces; authors' tag2text.py
DECIMALS = 4
Scores = Mapping[str, float]


class Looker:
    """Boxes and captions of tagged photos, by the torch model."""

    def __init__(
        self,
        predictor: TorchPredictor,
        bundle: Bundle,
        labels: LabelSet,
        *,
        boxes: bool,
        caption: bool,
    ) -> None:
        self._predictor = predictor
        self._labels = labels
        self._rows = torch.from_numpy(labels.rows)
        self._boxes = boxes
        self._writer = CaptionWriter(predictor, bundle) if caption else None
        self._config = bundle.preprocess

    def look(
        self,
        photos: Pixels,
        sizes: Sequence[tuple[int, int]],
        chosen: Sequence[Scores],
        ids: Mapping[str, int],
    ) -> list[dict[str, Any]]:
        """`boxes` and `generated_captions` of the first photos of a full batch (B, 3, S, S).

        `sizes` are the widths and heights that they had, `chosen` their tags; `ids` tells the
        label of each name that a tag may have.
        """
        predictor = self._predictor
        with torch.inference_mode(), predictor.precision():
            encoded = predictor.encode(photos)
        found: list[dict[str, Any]] = [{} for _ in chosen]
        if self._boxes:
            for index, (tags, size) in enumerate(zip(chosen, sizes, strict=True)):
                found[index]["boxes"] = self._find(
                    _one(encoded, index), tags, ids, self._view(*size)
                )
        if self._writer is not None:
            # Captions were learnt from the model's own strings, not from their new names.
            own = [[self._labels.labels[ids[t]].tag for t in tags] for tags in chosen]
            for added, caption in zip(found, self._writer.write(encoded, own), strict=True):
                added["generated_captions"] = [caption]
        return found

    def _view(self, width: int, height: int) -> View:
        if self._config.fit == "squash":
            return View()
        return View.middle_square(width, height, self._config.crop_share)

    def _find(
        self, photo: Encoded, scores: Scores, ids: Mapping[str, int], view: View
    ) -> dict[str, list[Any]]:
        """`{tag: [[x0, y0, x1, y1], score]}` of one photo, corners as shares of its sides.

        The box holds the peak of the cross-attention, as in cleaning.
        """
        if not scores:
            return {}
        predictor = self._predictor
        rows = self._rows[[ids[tag] for tag in scores]].to(predictor.device)
        with torch.inference_mode(), predictor.precision():
            _, maps = predictor.model.tag_logits_with_maps(photo, rows)
        (grids,) = heat_maps(maps, predictor.model.encoder.extra_tokens)
        corners = [box.tolist() for box in label_boxes(grids, view)]
        return {
            tag: [[round(corner, DECIMALS) for corner in box], score]
            for (tag, score), box in zip(scores.items(), corners, strict=True)
        }


class CaptionWriter:
    """One caption a photo, guided by its tags."""

    def __init__(self, predictor: TorchPredictor, bundle: Bundle) -> None:
        self._predictor = predictor
        self._tokenizer = load_caption_tokenizer(bundle)
        config = self._tokenizer.config
        longest = min(LONGEST, config.max_positions, config.caption_tokens)
        self._decoding = Decoding(beams=BEAMS, max_length=longest)

    def write(self, encoded: Encoded, tags: Sequence[Sequence[str]]) -> list[str]:
        """The captions of a full batch of photos, from the model's own tags of each."""
        predictor, tokenizer = self._predictor, self._tokenizer
        texts = [list(own) for own in tags]
        texts += [[]] * (len(encoded.tokens) - len(texts))
        tag_ids, tag_mask, prompt = (
            torch.from_numpy(array).to(predictor.device)
            for array in (*tokenizer.encode_tags(texts), tokenizer.prompts(len(texts)))
        )
        with torch.inference_mode(), predictor.precision():
            ids = predictor.model.generate(
                encoded, tag_ids, tag_mask, prompt, self._decoding,
                Ends(tokenizer.end, tokenizer.pad),
            )  # fmt: skip
        return [text.strip() for text in tokenizer.decode(ids.cpu().numpy())][: len(tags)]


def _one(encoded: Encoded, index: int) -> Encoded:
    """One photo of a batch: what is found in it must not depend on the tags of the others."""
    photo = encoded.photo
    if photo is not None:
        parts = {f.name: getattr(photo, f.name) for f in fields(photo)}
        tensors = {name: v[index : index + 1] for name, v in parts.items() if isinstance(v, Tensor)}
        photo = replace(photo, **tensors)
    return replace(encoded, tokens=encoded.tokens[index : index + 1], photo=photo)
