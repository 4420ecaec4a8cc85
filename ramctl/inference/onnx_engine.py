"""The inference engine without torch: the bundle's graph in onnxruntime, for tags alone.

B photos a batch, S pixels a side, L labels, W width of a label's row.
"""

import platform
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ramctl.checkpoints.bundle import GRAPH, INT8_GRAPH, LABEL_QUERIES, PHOTOS, WEIGHTS, Bundle
from ramctl.errors import RunProblem, UsageProblem
from ramctl.inference.constant_input import bind_input

TORCH = "torch"
LARGE = 200_000_000  # bytes of weights, from which on decoding is no longer what takes the time
# Constants made of a label's row take 4 to 8 KB, and four times as much while the graph is loaded.
# Of longer lists nothing is kept but the rows, and the graph runs for one part after the other: by
# half more work for a batch of four photos.
LABELS_AT_ONCE = 8192
BYTES_A_PIXEL = 1700  # that a run of Swin-L with a RAM's decoders takes besides the weights
MEMORY = Path("/proc/meminfo"), Path("/sys/fs/cgroup")  # the machine's, and a container's limit
Floats = NDArray[np.float32]


class OnnxEngine:
    """A graph of the bundle with a fixed set of labels, on the CPU."""

    def __init__(self, bundle: Bundle, graph: str, rows: Floats, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if _adds_in_16_bits():
            options.add_session_config_entry("session.x64quantprecision", "1")
        # Waiting threads that spin would take the cores from the workers that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = bundle.path / graph
        # Weights are references into the bundle; bytes have no folder of their own.
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(bundle.path)
        )
        try:
            content = path.read_bytes()
            self._parts: list[Floats] = []  # rows that are given anew with each batch
            if rows.ndim == 2 and len(rows) <= LABELS_AT_ONCE:
                content = bind_input(content, LABEL_QUERIES, rows)
            else:
                # Descriptions are weighed by each photo: nothing of them can be done once.
                starts = range(0, len(rows), LABELS_AT_ONCE)
                self._parts = [rows[start : start + LABELS_AT_ONCE] for start in starts]
            self._session = onnxruntime.InferenceSession(
                content,
                options,
                providers=["CPUExecutionProvider"],
                # Its kernel takes four times as long as the addition and the norm that it joins.
                disabled_optimizers=["SkipLayerNormFusion"],
            )
        except Exception as error:  # onnxruntime's own exceptions share no base class
            raise RunProblem(f"{path}: onnxruntime cannot load it: {error}") from error

    def scores(self, photos: Floats) -> Floats:
        """Probabilities (B, L) of photos (B, 3, S, S)."""
        if not self._parts:
            return sigmoid(self._run({PHOTOS: photos}))
        feeds = ({PHOTOS: photos, LABEL_QUERIES: rows} for rows in self._parts)
        return np.concatenate([sigmoid(self._run(feed)) for feed in feeds], 1)

    def _run(self, feeds: dict[str, Floats]) -> Floats:
        """Logits (B, L) of what the graph asks for."""
        from onnxruntime import OrtValue

        given = {name: OrtValue.ortvalue_from_numpy(values) for name, values in feeds.items()}
        (logits,) = self._session.run_with_ort_values(None, given)
        return np.asarray(logits.numpy())


def _adds_in_16_bits() -> bool:
    """Whether this processor's sums of two products of 8-bit integers may overflow.

    x86 without VNNI; int8 scores would depend on the machine. Where the flags cannot be read it is
    taken for one: the detour is slow on the newest servers only (those with AMX).
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return True


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits without overflow; tiny ones keep their digits."""
    against = np.exp(-np.maximum(logits, np.float32(-80)))
    return np.asarray(1 / (1 + against), np.float32)


def choose_runtime(bundle: Bundle, runtime: str, device: str, dtype: str) -> str:
    """The graph's file name, or `torch`: what `--runtime`, `--device` and `--dtype` come to.

    What is asked for; else torch on the GPU, where both are there and the model is large enough to
    gain by it; else the graph on the CPU, or torch where there is none. UsageProblem when they
    contradict each other, RunProblem when the bundle has no such graph.
    """
    wanted = bundle.dtype if dtype == "auto" else dtype
    graph = INT8_GRAPH if wanted == "int8" else GRAPH
    fits_graph = device in ("auto", "cpu") and dtype not in ("bf16", "fp16")
    if fits_graph and (runtime, device) == ("auto", "auto") and dtype != "int8":
        fits_graph = not (bundle.file_sizes.get(WEIGHTS, 0) >= LARGE and has_gpu())
    if runtime == TORCH or (runtime == "auto" and not (fits_graph and bundle.has(graph))):
        if dtype == "int8":
            raise RunProblem(f"{bundle.path}: has no {INT8_GRAPH}, and torch does not run int8")
        return TORCH
    if not fits_graph:
        raise UsageProblem("--runtime onnx runs on the CPU in fp32 or int8")
    if not bundle.has(graph):
        raise RunProblem(
            f"{bundle.path}: has no {graph}; `ramctl convert {bundle.path} --to onnx` adds it"
        )
    return graph


def most_runs(bundle: Bundle, cores: int) -> int:
    """How many runs of a graph at a time: one a core, and of a large model no more than half of
    the free memory holds."""
    free = free_memory()
    if bundle.file_sizes.get(WEIGHTS, 0) < LARGE or free is None:
        return cores
    a_run = BYTES_A_PIXEL * bundle.preprocess.size**2 * (bundle.batch_size or 1)
    return max(1, min(cores, free // 2 // a_run))


def free_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say (not Linux)."""
    machine, limits = MEMORY
    try:
        (line,) = [x for x in machine.read_text().splitlines() if x.startswith("MemAvailable")]
    except (OSError, ValueError):
        return None
    free = int(line.split()[1]) * 1024
    try:
        most, taken = (int((limits / f"memory.{x}").read_text()) for x in ("max", "current"))
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return min(free, max(0, most - taken))


def has_gpu() -> bool:
    """Whether torch is there with a GPU that it can use."""
    if find_spec("torch") is None:
        return False
    import torch  # seconds, which only those who ask pay

    return bool(torch.cuda.is_available())


def number_format(graph: str) -> str:
    """The number format in which a graph computes."""
    return "int8" if graph == INT8_GRAPH else "fp32"
