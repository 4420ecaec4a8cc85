"""The engine in onnxruntime: scores by the bundle's graph, without torch.

B photos a batch, S pixels a side, L labels, W width of a label's row.
"""

import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import (
    GRAPH,
    INT8_GRAPH,
    LABEL_QUERIES,
    LOGITS,
    OFFSETS,
    PHOTOS,
    SHORTLIST,
    WEIGHTS,
    Bundle,
)
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.graph_parts import Graph, constant, graph_input
from ramctl.inference.log_odds import score_logits

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TORCH = "torch"
MIN_GPU_BYTES = 200_000_000  # of weights: smaller models are faster than decoding, on a CPU too
# Constants made of a label's row take 4 to 8 KB, and four times as much while they are made. Of a
# longer list they are made again for each group of batches, one part of it after the other.
LABELS_AT_ONCE = 8192
Floats = NDArray[np.float32]


class OnnxEngine:
    """A graph of the bundle with a fixed set of labels, on the CPU.

    Labels that are not on a photo's shortlist (offsets (L) and a size) score 0, unless the engine
    scores all: then `scores_each` has both. Each part of a long list has a shortlist.
    """

    def __init__(
        self, bundle: Bundle, graph: str, rows: Floats, threads: int,
        shortlist: tuple[Floats, int] | None = None, *, scores_all: bool = False,
    ) -> None:  # fmt: skip
        self._shortlist_size = shortlist[1] if shortlist is not None and scores_all else None
        self._threads, path = threads, bundle.path / graph
        self._parts = [slice(i, i + LABELS_AT_ONCE) for i in range(0, len(rows), LABELS_AT_ONCE)]
        self._rows = rows
        self._sides: dict[str, InferenceSession] = {}
        self._constants: dict[str, NDArray[Any]] = {}  # which a session reads where they are
        try:
            self._load(path, rows)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise RunProblem(f"{path}: onnxruntime cannot load it: {error}") from error
        first, side_px = self._sides.get(PHOTOS, self._main), bundle.preprocess.size
        sides = {side for given in first.get_inputs() if given.name == PHOTOS
                 for side in given.shape[2:] if isinstance(side, int)}  # fmt: skip
        if sides - {side_px}:
            raise RunProblem(
                f"{path}: takes photos of {max(sides)} px, and the bundle has {side_px}"
            )
        takes = {given.name for given in self._main.get_inputs()}
        offsets, max_size = shortlist or (np.zeros(len(rows), np.float32), len(rows))
        self._feeds: list[dict[str, NDArray[Any]]] = []  # besides the photos, of one run each
        for part in self._parts:
            size = np.array([len(rows[part]) if scores_all else min(max_size, len(rows[part]))])
            feed = {LABEL_QUERIES: rows[part], OFFSETS: offsets[part], SHORTLIST: size}
            self._feeds.append({name: value for name, value in feed.items() if name in takes})

    def _load(self, path: Path, rows: Floats) -> None:
        """Open the sessions.

        What depends on the labels alone is computed once, and becomes constants. For a long list,
        what depends on the labels alone, or on the photos alone, has a session of its own.
        """
        graph = Graph.read(path)
        given = dict(graph.inputs)
        # A photo weighs the descriptions of labels: nothing can be computed without it.
        for name in (LABEL_QUERIES, PHOTOS)[: len(self._parts)] if rows.ndim == 2 else ():
            part = graph.cut(graph.border(name), {name: given.pop(name)})
            side = self._session(path, part, plain=len(self._parts) == 1)
            if len(self._parts) == 1:
                self._constants = values = _outputs(side, {name: rows})
                for node in side.get_outputs():
                    given[node.name] = constant(node.name, node.type, values[node.name].shape)
            else:
                self._sides[name] = side
                given |= {
                    node.name: graph_input(node.name, node.type) for node in side.get_outputs()
                }
        ranked = graph.ranked if self._shortlist_size is not None else None
        outputs = [LOGITS, ranked] if ranked else [LOGITS]
        self._main = self._session(path, graph.cut(outputs, given), self._constants)

    def _session(
        self, path: Path, model: bytes, constants: Mapping[str, NDArray[Any]] | None = None,
        plain: bool = False,
    ) -> "InferenceSession":  # fmt: skip
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The arena returns no memory; without it fp32, whose results are large, takes 25 % longer.
        options.enable_cpu_mem_arena = path.name != INT8_GRAPH
        if plain:  # as constants are folded: node by node
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if _adds_in_16_bits():
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Waiting threads that spin would take the cores from the workers that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Weights are references into the bundle; bytes have no folder of their own.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent)
        )
        if constants:
            values = map(onnxruntime.OrtValue.ortvalue_from_numpy, constants.values())
            options.add_external_initializers(list(constants), list(values))
        # Its kernel takes four times as long as the addition and the norm that it joins.
        slow = ["SkipLayerNormFusion"]
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=slow
        )

    def scores(self, photos: Floats) -> Floats:
        """Probabilities (B, L) of photos (B, 3, S, S)."""
        return self.scores_each([photos])[0][0]

    def scores_each(self, batches: Sequence[Floats]) -> list[tuple[Floats, Floats]]:
        """The scores of each batch, and those with 0 for labels that are not on the shortlist.

        Work on a long list's words that no photo needs is done once for all batches.
        """
        inputs = [{PHOTOS: photos} for photos in batches]
        if PHOTOS in self._sides:
            inputs = [_outputs(self._sides[PHOTOS], photos) for photos in inputs]
        parts = []
        for part, feed in zip(self._parts, self._feeds, strict=True):
            words = {}
            if LABEL_QUERIES in self._sides:
                rows = {LABEL_QUERIES: self._rows[part]}
                words = _outputs(self._sides[LABEL_QUERIES], rows)
            runs = (self._main.run(None, photos | words | feed) for photos in inputs)
            parts.append([self._both(*outputs) for outputs in runs])
        joined = []
        for batch in zip(*parts, strict=True):
            scores, listed = zip(*batch, strict=True)
            joined.append((np.concatenate(scores, 1), np.concatenate(listed, 1)))
        return joined

    def _both(self, logits: Floats, ranked: Floats | None = None) -> tuple[Floats, Floats]:
        """The scores of all labels, and those of a shortlist, as the graph would choose it."""
        scores = score_logits(logits)
        if ranked is None:
            return scores, scores
        chosen = np.argsort(-ranked, axis=1, kind="stable")[:, : self._shortlist_size]
        listed = np.full_like(logits, -np.inf)
        np.put_along_axis(listed, chosen, np.take_along_axis(logits, chosen, 1), 1)
        return scores, score_logits(listed)


def _outputs(session: "InferenceSession", feed: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _adds_in_16_bits() -> bool:
    """Whether this processor's sums of two products of 8-bit integers may overflow.

    That is x86 without VNNI, where int8 scores would differ from those of other machines. If the
    flags cannot be read, the answer is True: that is slow on the newest servers (with AMX) only.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return True


def choose_runtime(bundle: Bundle, runtime: str, device: str, dtype: str) -> str:
    """The graph's file name, or `torch`, for `--runtime`, `--device` and `--dtype`.

    For `auto`: torch where there is a GPU and the model is large enough to gain by it, else the
    graph on the CPU, or torch where there is no graph. UsageProblem when the options contradict
    each other, RunProblem when the bundle has no such graph.
    """
    requested = bundle.dtype if dtype == "auto" else dtype
    graph = INT8_GRAPH if requested == "int8" else GRAPH
    fits_graph = device in ("auto", "cpu") and dtype not in ("bf16", "fp16")
    if fits_graph and (runtime, device) == ("auto", "auto") and dtype != "int8":
        fits_graph = not (bundle.file_sizes.get(WEIGHTS, 0) >= MIN_GPU_BYTES and has_gpu())
    if runtime == TORCH or (runtime == "auto" and not (fits_graph and bundle.has(graph))):
        if dtype == "int8":
            raise RunProblem(f"{bundle.path}: has no {INT8_GRAPH}, and torch does not run int8")
        return TORCH
    if not fits_graph:
        raise UsageProblem("--runtime onnx runs on the CPU in fp32 or int8")
    if not bundle.has(graph):
        remedy = f"`ramctl convert {bundle.path} --to onnx` adds it"
        raise RunProblem(f"{bundle.path}: has no {graph}; {remedy}")
    return graph


def has_gpu() -> bool:
    """Whether torch is there with a GPU that it can use."""
    if find_spec("torch") is None:
        return False
    import torch  # seconds, which only those who ask pay

    return bool(torch.cuda.is_available())


def number_format(graph: str) -> str:
    """The number format in which a graph computes."""
    return "int8" if graph == INT8_GRAPH else "fp32"
