"""The arm that keeps everything: the same engines over every visual token of every frame."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Array, Backend, Engine, Run
from memorywam_runtime.bench.bench_arm import ArmOptions, Spans
from memorywam_runtime.bench.bench_sizes import full_history_rows
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import InputError
from memorywam_runtime.free_memory import available_bytes
from memorywam_runtime.manifest import GraphEntry, Manifest
from memorywam_runtime.opening import backend_from_opening
from memorywam_runtime.tensors import TensorSpec, storage_dtype

__all__ = ["HistoryArm"]

_BLOCK = 1 << 16
"""Random values that are repeated to fill a tensor: a memory of gigabytes takes no time to draw."""
_MOST_OF_AVAILABLE = 0.8


class HistoryArm:
    """Graphs on tensors of their own, with memory as large as full history would make it.

    What the tensors hold is random and every row is seen: it costs what real keys and values
    would. The steps of a chunk are the same call again and again. The graphs still make the
    newest frame's gist tokens.
    """

    def __init__(self, options: ArmOptions) -> None:
        self._options = options

    def open(self) -> dict[str, Any]:
        """Load the engines that a tick needs."""
        started_s = time.monotonic()
        root = Path(self._options.root)
        self._manifest = read_manifest(root)
        self._backend = backend_from_opening(self._options.opening)
        self._encoders = _encoders(self._manifest)
        self._engines: dict[str, Engine] = {}
        for name in ("vae_first", *self._encoders, "cache_update", "action_step"):
            entry = self._manifest.graphs[name]
            self._engines[name] = self._backend.load(root / entry.file, entry)
        conventions = self._manifest.contract.conventions
        self._num_steps = self._options.num_steps or conventions.num_steps
        self._runs: dict[str, Run] = {}
        return {
            "provider": getattr(self._backend, "provider", None),
            "is_async": self._backend.is_async,
            "open_s": time.monotonic() - started_s,
            "first_ms": {},
        }

    def fill(self, frames: int) -> dict[str, Any]:
        """Make memory for that many frames; then make one tick that nobody counts.

        Raises:
            InputError: the machine has not that much memory left.
        """
        self._runs.clear()  # the last fill's memory goes before the next one's comes
        manifest = self._manifest
        rows = full_history_rows(manifest, frames)
        needed, available = rows * manifest.memory.bytes_per_token, available_bytes()
        if needed > _MOST_OF_AVAILABLE * available:
            raise InputError(
                f"full history of {frames} frames takes {needed / 1e9:.1f} GB; expected at most "
                f"{_MOST_OF_AVAILABLE:.0%} of the {available / 1e9:.1f} GB that are free: measure "
                "it on a larger machine, or at fewer frames"
            )
        memory = _memory(manifest, self._backend, rows)
        encoders = self._encoders if frames > 1 else ("vae_first",)
        tokens = {
            "cache_update": manifest.contract.num_frame_tokens,
            "action_step": manifest.contract.actions.horizon,
        }
        keys = dict.fromkeys(encoders, 0)
        for graph, own in tokens.items():
            own = 0 if manifest.cache_write == "in_place" else own
            keys[graph] = rows + own + manifest.rows.num_window
        self._runs = {
            graph: _bound(
                self._backend, self._engines[graph], manifest.graphs[graph], memory, rows, count
            )
            for graph, count in keys.items()
        }
        return {
            "rows": rows,
            "keys": {graph: keys[graph] for graph in tokens},
            "memory_bytes": needed,
            "first_tick_ms": self._tick()["tick"][0],
        }

    def tick(self, *, discard: int = 0) -> Spans:
        """Encode, update, and make every step of a chunk."""
        for _ in range(discard):
            self._tick()
        return self._tick()

    def _tick(self) -> Spans:
        """Run the graphs of a tick one by one, each to its end."""
        spans: Spans = {}
        for graph, run in self._runs.items():
            count = self._num_steps if graph == "action_step" else 1
            spans[graph] = [self._timed(run) for _ in range(count)]
        chunk_ms = sum(spans["action_step"])
        remember_ms = sum(sum(ms) for graph, ms in spans.items() if graph != "action_step")
        wholes = {"remember": remember_ms, "chunk": chunk_ms, "tick": remember_ms + chunk_ms}
        return spans | {stage: [took_ms] for stage, took_ms in wholes.items()}

    def _timed(self, run: Run) -> float:
        """Return how long one call takes, ms."""
        started_ns = time.monotonic_ns()
        run()
        self._backend.finish()
        return (time.monotonic_ns() - started_ns) / 1e6


def _encoders(manifest: Manifest) -> tuple[str, ...]:
    """Return the graphs that are left to run when the last image of a group is there."""
    parts = ("vae_image", "vae_pair", "vae_group")
    return parts if "vae_image" in manifest.graphs else ("vae_step",)


def _memory(manifest: Manifest, backend: Backend, rows: int) -> dict[str, Array]:
    """Return memory tensors of that many rows by name, all of them written to."""
    specs = manifest.graphs["cache_update"].inputs
    memory = {}
    for spec in (s.bound(rows=rows) for s in specs if s.name.startswith("memory.")):
        memory[spec.name] = _array(backend, spec)
        backend.write(memory[spec.name], _values(spec))
    return memory


def _bound(
    backend: Backend,
    engine: Engine,
    entry: GraphEntry,
    memory: dict[str, Array],
    rows: int,
    keys: int,
) -> Run:
    """Return a call of a graph on memory and on tensors of its own."""
    inputs: dict[str, Array] = {}
    for spec in (s.bound(rows=rows, keys=keys) for s in entry.inputs):
        inputs[spec.name] = memory.get(spec.name)
        if spec.name not in memory:
            inputs[spec.name] = _array(backend, spec)
            backend.write(inputs[spec.name], _values(spec))
    outputs = {}
    for spec in (s.bound(rows=rows, keys=keys) for s in entry.outputs):
        held = spec.name.replace("memory_out.", "memory.", 1)
        outputs[spec.name] = memory[held] if held in memory else _array(backend, spec)
    return engine.bind(inputs, outputs)


def _array(backend: Backend, spec: TensorSpec) -> Array:
    """Return a new tensor."""
    return backend.view(backend.flat(int(np.prod(spec.fixed_shape)), spec), spec)


def _values(spec: TensorSpec) -> NDArray[Any]:
    """Return normal values; zeros for rows and for biases, so that everything is seen."""
    if spec.dtype == "int64" or spec.name.endswith("_bias"):
        return spec.zeros()
    block = np.random.default_rng(0).standard_normal(_BLOCK, np.float32)
    if spec.dtype == "bfloat16":
        block = (block.view(np.uint32) >> 16).astype(np.uint16)
    return np.resize(block.astype(storage_dtype(spec.dtype), copy=False), spec.fixed_shape)
