"""The engine in onnxruntime: logits by the bundle's two graphs, without torch.

photo.onnx sees the photo, labels.onnx scores rows of labels against what it saw. Where a global
branch scores all labels at a fiftieth of the tag decoder's price, the decoder answers for each
photo's likeliest labels alone. B photos, S pixels a side, L labels, W width of a label's row.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import LABEL_GRAPH, PHOTO_GRAPH, WEIGHTS, Bundle
from ramctl.checkpoints.static_table import unit
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.class_evidence import MIN_MASS, ClassEvidence
from ramctl.inference.log_odds import N_LIKELIEST, Salience
from ramctl.records.labels import Labels

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TORCH, ONNX = "torch", "onnx"
MIN_GPU_BYTES = 200_000_000  # of weights: smaller models are faster than decoding, on a CPU too
ROWS_AT_ONCE = 2048  # of labels
MIN_LISTED, LISTED_FRACTION = 64, 56  # labels that the decoder answers for: one in 56, or 64
LIKELY_CLASSES = 64  # of a photo, which rank its labels
USUAL_HEADROOM = 0.9  # quantile, for words that are no labels
Floats = NDArray[np.float32]
Ids = NDArray[np.int64]
EncodedPhotos = dict[str, Floats]  # the outputs of photo.onnx by name
Graphs = list[Future["InferenceSession"]]


class OnnxEngine:
    """The graphs of a bundle with a fixed list of labels, on the CPU in one thread.

    The workers keep all cores busy. Labels that are not among a photo's likeliest have the logit
    -inf, unless it `scores_all`. `graphs` are the bundle's, where they are being opened already.
    """

    def __init__(
        self, bundle: Bundle, labels: Labels, evidence: ClassEvidence | None = None, *,
        scores_all: bool = False, graphs: Graphs | None = None,
    ) -> None:  # fmt: skip
        assert labels.rows is not None
        self._rows = labels.rows
        has_headroom = any(label.headroom is not None for label in labels)
        use_branch = has_headroom and not scores_all and len(labels) > MIN_LISTED
        opening = graphs or open_graphs(bundle)
        self._branch = Branch(bundle, labels, evidence) if use_branch else None
        self._photo, self._labels = (graph.result() for graph in opening)
        self._takes = {given.name for given in self._labels.get_inputs()} - {"rows"}

    def encode(self, photos: Floats) -> EncodedPhotos:
        """The outputs of the photo graph for photos (B, 3, S, S)."""
        names = [output.name for output in self._photo.get_outputs()]
        return dict(zip(names, self._photo.run(names, {"photos": photos}), strict=True))

    def pooled(self, encoded: EncodedPhotos) -> Floats:
        """The pooled features (B, C) of a model with a global branch."""
        return encoded["pooled"]

    def classes(self, encoded: EncodedPhotos) -> Floats:
        """The flattened probabilities (B, K) of the backbone's classes."""
        return encoded["classes"]

    def logits(self, encoded: EncodedPhotos, lifted: Sequence[Ids] | None = None) -> Floats:
        """Logits (B, L) of the labels; for each photo some may be `lifted` among its likeliest."""
        if self._branch is None:
            parts = [self._score(encoded, rows) for rows in _blocks(self._rows)]
            return np.concatenate(parts, 1)
        listed = self._branch.likeliest(encoded)
        for index, ids in enumerate(lifted or ()):
            listed[index, ids] = True
        found = np.full(listed.shape, -np.inf, np.float32)
        for index, is_listed in enumerate(listed):
            photo = {name: values[index : index + 1] for name, values in encoded.items()}
            found[index, is_listed] = self._score(photo, self._rows[is_listed])[0]
        return found

    def _score(self, encoded: EncodedPhotos, rows: Floats) -> Floats:
        feed = {name: encoded[name] for name in self._takes} | {"rows": rows}
        return np.asarray(self._labels.run(["logits"], feed)[0])


def open_graphs(bundle: Bundle) -> Graphs:
    """Begin to open both graphs in a thread, which takes as long as labels are read."""
    pool = ThreadPoolExecutor(1)
    graphs = [pool.submit(_session, bundle.path / name) for name in (PHOTO_GRAPH, LABEL_GRAPH)]
    pool.shutdown(wait=False)  # its thread ends with them
    return graphs


def _blocks(rows: Floats) -> list[Floats]:
    return [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]


class Branch:
    """Ranks labels by what the global branch and the decoder at most could give them.

    The formula is that of `ramctl.model.global_branch`. K classes of the backbone.
    """

    def __init__(
        self, bundle: Bundle, labels: Labels, evidence: ClassEvidence | None = None
    ) -> None:
        self._evidence = evidence
        names = ("class_names", "scale", "class_scale", "offset")
        tensors = bundle.tensors(f"prior.{name}" for name in names)
        class_names, scale, class_scale, offset = (
            tensors[f"prior.{name}"].astype(np.float32) for name in names
        )
        # The whole preset takes as long to read as two photos to tag.
        own_width = bundle.meta["architecture"]["labels"]["own_width"]
        sharpness = bundle.meta["architecture"]["prior"]["class_sharpness"]
        assert labels.rows is not None
        width = class_names.shape[1]
        self._vectors, bias = np.split(labels.rows, [width + own_width], 1)
        self._scale, self._text = scale, labels.rows[:, :width].T
        self._directions = sharpness * class_names
        # Of the classes that photos have shown: all of them would take as long as three photos.
        self._likeness = np.zeros((len(class_names), len(labels)), np.float32)
        self._has_likeness = np.zeros(len(class_names), bool)
        self._class_scale = class_scale
        headroom = labels.numbers("headroom", np.nan)
        if np.isnan(headroom).any():
            headroom[np.isnan(headroom)] = np.nanquantile(headroom, USUAL_HEADROOM)
        most = bias[:, -1] + offset + headroom
        self._slopes, offsets = labels.curves.T.astype(np.float32)
        self._most = (self._slopes * most + offsets).astype(np.float32)
        self._size = max(MIN_LISTED, len(labels) // LISTED_FRACTION)
        self._salience = Salience.from_bundle(bundle.meta.get("salience"), labels)

    def likeliest(self, encoded: EncodedPhotos) -> NDArray[np.bool_]:
        """Whether a label could be among a photo's likeliest, or what it is of (B, L)."""
        query = np.concatenate([self._scale * unit(encoded["feature"]), encoded["own"]], 1)
        branch = query @ self._vectors.T
        branch += self._class_scale * np.log(self._by_class(encoded["classes"]))
        ranked = self._slopes * branch + self._most
        listed = _highest(ranked, self._size)
        if self._salience is not None:
            main = self._salience.slope * ranked + self._salience.weights
            listed |= _highest(main, 4 * N_LIKELIEST)
        if self._evidence is not None:
            raised = self._evidence.masses(encoded["classes"]) > MIN_MASS
            listed[:, self._evidence.labels] |= raised
        return listed

    def _by_class(self, classes: Floats) -> Floats:
        """The likeness (B, L) of labels to each photo's likeliest classes (B, K)."""
        is_likely = _highest(classes, min(LIKELY_CLASSES, classes.shape[1]))
        likely = np.flatnonzero(is_likely.any(0))
        if len(new := likely[~self._has_likeness[likely]]):
            self._likeness[new] = np.exp(self._directions[new] @ self._text)
            self._has_likeness[new] = True  # other threads may compute the same meanwhile
        return np.where(is_likely, classes, 0)[:, likely] @ self._likeness[likely]


def _highest(values: NDArray[Any], number: int) -> NDArray[np.bool_]:
    """Which of the values (B, L) are among the `number` highest of their row."""
    kept = np.zeros(values.shape, bool)
    ids = np.argpartition(-values, number - 1, axis=1)[:, :number]
    np.put_along_axis(kept, ids, True, axis=1)
    return kept


def _session(path: Path) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise RunProblem(f"{path}: onnxruntime cannot load it: {error}") from error


def choose_runtime(bundle: Bundle, runtime: str, device: str, dtype: str) -> str:
    """`onnx` or `torch`, for `runtime`, `--device` and `--dtype`.

    For `auto`: torch where there is a GPU and the model is large enough to gain by it, else the
    graphs on the CPU, or torch where there are none of that number format. UsageProblem when the
    options contradict each other, RunProblem when the bundle has no such graph.
    """
    fits_graph = device in ("auto", "cpu") and dtype in ("auto", bundle.dtype)
    if dtype == "int8" and not (fits_graph and bundle.has(PHOTO_GRAPH) and runtime != TORCH):
        raise RunProblem(f"{bundle.path}: has no graph in int8, and torch does not run it")
    if fits_graph and (runtime, device, dtype) == ("auto", "auto", "auto"):
        fits_graph = not (bundle.meta["files"][WEIGHTS]["bytes"] >= MIN_GPU_BYTES and has_gpu())
    if runtime == TORCH or (runtime == "auto" and not (fits_graph and bundle.has(PHOTO_GRAPH))):
        return TORCH
    if not fits_graph:
        raise UsageProblem(f"runtime onnx runs on the CPU in {bundle.dtype}")
    if not bundle.has(PHOTO_GRAPH):
        remedy = f"`ramctl convert {bundle.path} --to onnx` adds them"
        raise RunProblem(f"{bundle.path}: has no graphs; {remedy}")
    return ONNX


def has_gpu() -> bool:
    """Whether torch is there with a GPU that it can use."""
    if find_spec("torch") is None:
        return False
    import torch  # seconds, which only those who ask pay

    return bool(torch.cuda.is_available())
