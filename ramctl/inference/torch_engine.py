"""The engine in torch: logits, regions, attention and captions of one model.

B photos, S pixels a side, T tokens, C channels of the backbone, L labels, P regions.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ramctl.checkpoints.bundle import Bundle
from ramctl.checkpoints.load import fold_batchnorms, load_model
from ramctl.errors import RunProblem
from ramctl.inference.boxes import (
    CELL_PEAK_FRACTION,
    PEAK_FRACTION,
    attention_heat,
    cell_heat,
    heat_map_box,
)
from ramctl.model.attention import joined, map_tensors
from ramctl.model.device import Runtime
from ramctl.model.generation import Decoding, Ends, generate
from ramctl.model.ram import RAM, Encoded, PreparedLabels
from ramctl.model.regions import Regions, cell_logits, region_logits
from ramctl.records.labels import Labels

# Photos of 384 px leave 160 MB each in Swin-L's first layers, and more at once are no faster.
PIXELS_AT_ONCE = 384 * 384
BYTES_A_PIXEL = 1100  # the same in fp32
MAX_AT_ONCE = 64  # more gain nothing: a GPU is busy by then
# What is prepared of a label's row takes 4 to 8 KB: of a longer list it is prepared for each batch.
MAX_PREPARED = 8192
Floats = NDArray[np.float32]
Tokens = NDArray[np.int64]
Part = TypeVar("Part")


def photos_that_fit(device: torch.device, size: int, usual: int) -> int:
    """How many photos of `size` pixels a side the model takes at a time.

    On a GPU as many as half of its free memory holds, elsewhere as many as `usual`.
    """
    if device.type != "cuda":
        return usual
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(MAX_AT_ONCE, int(free / 2 / (BYTES_A_PIXEL * size**2))))


class ScoredRegions(NamedTuple):
    logits: Floats  # (P) of each region's label
    features: Floats  # (P, F) of unit length


class TorchEngine:
    """A RAM in evaluation mode on its device.

    Whatever it computes goes through `_run`, which halves a batch that does not fit in memory and
    reports that by `notify`. Wherever it takes photos, (B, 3, S, S), it also takes the encoder's
    features of them, (B, T, C).
    """

    def __init__(
        self, model: RAM, runtime: Runtime, notify: Callable[[str], None] = lambda message: None
    ) -> None:
        self.model = model
        self.runtime = runtime
        self.notify = notify
        self._max_sizes: dict[str, int] = {}  # photos, or regions, at a time after memory ran out
        self._pixels_at_once: int | None = None
        self._layout = torch.contiguous_format

    @classmethod
    def open(
        cls, bundle: Bundle, runtime: Runtime, *, labels: Labels | None = None,
        captioning: bool = False, fold: bool = False,
        notify: Callable[[str], None] = lambda message: None,
    ) -> "TorchEngine":  # fmt: skip
        """The engine of a bundle's model; its labels are those given, or all that it has.

        With `fold` batch norms become part of the convolutions before them, which is faster and
        rounds in another way.
        """
        model = load_model(bundle, captioning=captioning, products=runtime.half)
        if fold:
            size = bundle.preprocess.size
            with torch.autocast("cpu", runtime.half, enabled=runtime.half is not None):
                fold_batchnorms(model.encoder, torch.zeros(1, 3, size, size))
        model.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        engine = cls(model, runtime, notify)
        engine._layout = torch.channels_last
        engine._pixels_at_once = PIXELS_AT_ONCE if runtime.device.type == "cpu" else None
        if labels is not None and labels.rows is not None:
            rows = torch.from_numpy(labels.rows)
            is_long = rows.dim() == 2 and len(rows) > MAX_PREPARED
            engine.labels = rows.to(runtime.device) if is_long else engine.prepare(rows)
            if not captioning:
                # A second copy of the descriptions would be a third of RAM++'s memory.
                model.labels.text = torch.nn.Parameter(torch.empty(0), requires_grad=False)
        return engine

    @cached_property
    def labels(self) -> PreparedLabels | Tensor:
        """The labels that photos are scored against by default.

        Prepared, or the rows of a long list, which are prepared piece by piece for each batch.
        """
        return self.labels_of(None)

    def labels_of(self, ids: Sequence[int] | None) -> PreparedLabels:
        """Some of the model's labels, or all of them, prepared."""
        device = self.runtime.device
        with torch.inference_mode():
            chosen = None if ids is None else torch.tensor(ids, dtype=torch.long, device=device)
            return self.prepare(self.model.labels(chosen))

    def prepare(self, rows: Tensor) -> PreparedLabels:
        """Labels of rows (L, W) or descriptions (L, M, E), with all work done before any photo."""
        with torch.inference_mode(), self.runtime.precision():
            return self.model.prepare_labels(rows.to(self.runtime.device))

    def encode(self, photos: Floats | Tensor) -> Encoded:
        """The photos as the decoders see them; RunProblem where one does not fit in memory."""
        parts = self._run(lambda x: self.model.encode(self._features(photos[x])), len(photos))
        return joined(parts)

    def pooled(self, encoded: Encoded) -> Floats:
        """The pooled features (B, C) of a model with a global branch."""
        assert encoded.photo is not None and encoded.photo.pooled is not None
        return encoded.photo.pooled.float().cpu().numpy()

    def classes(self, encoded: Encoded) -> Floats:
        """The flattened probabilities (B, K) of the backbone's classes."""
        assert encoded.photo is not None and encoded.photo.classes is not None
        return encoded.photo.classes.float().cpu().numpy()

    def logits(self, encoded: Encoded, lifted: object = None) -> Floats:
        """Logits (B, L) of all labels, for photos as the decoders see them."""

        def score(part: slice) -> Floats:
            return self.model.tag_logits(encoded[part], self.labels).total.float().cpu().numpy()

        return np.concatenate(self._run(score, len(encoded)))

    def features(self, photos: Floats | Tensor) -> Tensor:
        """The encoder's features of photos, (B, T, C) in fp32."""
        return torch.cat(self._run(lambda part: self._features(photos[part]).float(), len(photos)))

    def boxes(self, features: Tensor, labels: PreparedLabels) -> list[Floats]:
        """The box of each label in one photo, by its features (1, T, C)."""
        fraction = CELL_PEAK_FRACTION if self.model.scores_cells else PEAK_FRACTION
        (maps,) = self.heat_maps(features, labels)
        return [heat_map_box(heat, peak_fraction=fraction) for heat in maps]

    def heat_maps(self, features: Tensor, labels: PreparedLabels) -> Floats:
        """Where labels are in photos (B, L, rows, columns), by the encoder's features.

        By the cells of the grid where the model scores them, best in photos that are `enlarged`.
        Else, as in RAM and its kin, by the tag decoder's attention.
        """

        def cells(part: slice) -> Floats:
            logits = cell_logits(self.model, self._on_device(features[part]), labels)
            return cell_heat(logits.float().cpu().numpy())

        def attention(part: slice) -> Floats:
            maps: list[Tensor] = []
            self.model.tag_logits(self.model.encode(self._on_device(features[part])), labels, maps)
            return attention_heat(torch.stack(maps, 1), self.model.encoder.extra_tokens)

        do = cells if self.model.scores_cells else attention
        return np.concatenate(self._run(do, len(features)))

    def score_regions(
        self, features: Tensor, regions: Regions, labels: PreparedLabels
    ) -> ScoredRegions:
        """The logit of each region's label, and its feature."""

        def score(part: slice) -> tuple[Floats, Floats]:
            chosen = map_tensors(lambda tensor: tensor[part].to(self.runtime.device), regions)
            logits, feature = region_logits(self.model, features, chosen, labels)
            return logits.float().cpu().numpy(), feature.float().cpu().numpy()

        parts = self._run(score, len(regions.label), "regions")
        return ScoredRegions(*map(np.concatenate, zip(*parts, strict=True)))

    def write(
        self, encoded: Encoded, tags: tuple[Tokens, Tokens], prompt: Tokens, decoding: Decoding,
        ends: Ends,
    ) -> list[Tokens]:  # fmt: skip
        """The tokens (C, length) of each photo's captions, by tags, their mask (B, G), a prompt."""
        ids, mask, start = (torch.from_numpy(x).to(self.runtime.device) for x in (*tags, prompt))
        branch = self.model.captioning
        assert branch is not None

        def write(part: slice) -> list[Tokens]:
            state = branch.start(encoded.tokens[part], ids[part], mask[part])
            captions = generate(branch.decoder, state, start[part], decoding, ends)
            return [rows.cpu().numpy() for rows in captions.split(decoding.candidates)]

        return [captions for part in self._run(write, len(prompt)) for captions in part]

    def _run(self, do: Callable[[slice], Part], number: int, kind: str = "photos") -> list[Part]:
        """The results of `do` for a batch, or for its parts once memory ran out."""
        device = self.runtime.device
        while True:
            size = min(self._max_sizes.get(kind, number), number)
            try:
                with torch.inference_mode(), self.runtime.precision():
                    return [do(slice(i, i + size)) for i in range(0, number, size)]
            except torch.OutOfMemoryError as error:
                if size == 1:
                    item = kind.removesuffix("s")
                    raise RunProblem(f"{device}: not enough memory for one {item}") from error
                self._max_sizes[kind] = size // 2
            if device.type == "cuda":
                torch.cuda.empty_cache()
            self.notify(f"{device}: out of memory with {size} {kind}, going on with {size // 2}")

    def _features(self, photos: Floats | Tensor) -> Tensor:
        tensor = self._on_device(photos)
        return joined([self.model.encoder(x) for x in tensor.split(self._at_once(tensor))])

    def _at_once(self, photos: Tensor) -> int:
        if self._pixels_at_once is None or photos.dim() != 4:
            return len(photos)
        return max(1, self._pixels_at_once // (photos.shape[-1] * photos.shape[-2]))

    def _on_device(self, photos: Floats | Tensor) -> Tensor:
        tensor = torch.from_numpy(photos) if isinstance(photos, np.ndarray) else photos
        if self.runtime.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()  # only such memory is copied while the GPU computes
        tensor = tensor.to(self.runtime.device, non_blocking=True)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self._layout)
        return tensor
