"""What there is to build: each graph with its shapes, its weights and the key of its engine."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from memorywam_export.engines.engine import FLAVOURS, Shapes
from memorywam_export.engines.engine_lone import spelt_out_bytes
from memorywam_export.graphs.graph_specs import KEYS, ROWS
from memorywam_runtime.engines import RowsProfile, graph_hash
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.tensors import TensorSpec

__all__ = ["BUILDER_REVISION", "Job", "jobs_of", "types_and_weights"]

BUILDER_REVISION = 2
"""Part of every key: raise it when the same graph would become another engine."""

_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT8E4M3FN: "fp8",
    onnx.TensorProto.FLOAT8E5M2: "fp8",
    onnx.TensorProto.FLOAT4E2M1: "fp4",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "int4",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.BFLOAT16: "bf16",
}
"""Element types that only some architectures compute, or that only quantization brings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One graph to build for one target."""

    graph: str
    path: Path
    inputs: tuple[TensorSpec, ...]
    """A size that is still a name is open in the engine."""
    outputs: tuple[TensorSpec, ...]
    profile: RowsProfile | None
    """Rows of memory that the engine will take; None where the graph has no such size."""
    shapes: dict[str, Shapes]
    """Of the inputs with open sizes, by the profile."""
    types: frozenset[str]
    weight_bytes: int
    spelt_out: tuple[str, ...]
    """Weights in 8 bits that the engine holds in floats, as their activations are wide."""
    graph_sha256: str
    key: str

    @property
    def stem(self) -> str:
        """Name of the engine's files: another key is another file, so nothing is overwritten."""
        return f"{self.graph}-{self.key[:16]}"


def jobs_of(
    root: Path,
    manifest: Manifest,
    *,
    backend: str,
    version: str,
    target: str,
    workspace_bytes: int | None = None,
) -> list[Job]:
    """Return a job for every graph of a bundle.

    A graph that writes memory in place gets one engine for the rows of the largest gist bucket:
    TensorRT wants "a static sequence length dimension" of what it writes into, and an engine for
    each bucket would hold the weights as often. Any other graph keeps its rows open under one
    profile from the smallest bucket to the largest. One profile a bucket was tried: the tiny
    model's engine is four times as large and takes three times as long to build.

    Args:
        root: The bundle's directory.
        manifest: Of the bundle.
        backend: `tensorrt` or `tensorrt-rtx`.
        version: Of the backend.
        target: As `sm_89`.
        workspace_bytes: Limit for the compiler; it may choose other kernels under it.
    """
    device = (backend, version, target)
    return [_job(root, manifest, graph, device, workspace_bytes) for graph in manifest.graphs]


def _job(
    root: Path,
    manifest: Manifest,
    graph: str,
    device: tuple[str, str, str],
    workspace_bytes: int | None,
) -> Job:
    """Return the job of one graph; all that decides over its engine is in its key."""
    entry = manifest.graphs[graph]
    path, profile = root / entry.file, _profile(manifest, graph)
    window = manifest.rows.num_window
    inputs, outputs, shapes = entry.inputs, entry.outputs, dict[str, Shapes]()
    if profile is not None and _writes_in_place(entry.outputs):
        sizes = {ROWS: profile.rows_max, KEYS: profile.rows_max + window}
        inputs, outputs = (
            tuple(spec.bound(**sizes) for spec in specs) for specs in (inputs, outputs)
        )
    elif profile is not None:
        shapes = _shapes(inputs, profile, window)
    types, weight_bytes = types_and_weights(path)
    spelt_out: dict[str, tuple[int, int]] = {}
    if not FLAVOURS[device[0]].takes_lone_weights:
        spelt_out = spelt_out_bytes(onnx.load(str(path), load_external_data=False).graph)
        weight_bytes += sum(wide - narrow for narrow, wide in spelt_out.values())
    decides = {
        "graph": graph_hash(manifest, graph),
        "backend": device,
        "recipe": manifest.precision,
        "shapes": {spec.name: spec.shape for spec in inputs},
        "profile": shapes,
        "workspace_bytes": workspace_bytes,
        "revision": BUILDER_REVISION,
    }
    return Job(
        graph=graph,
        path=path,
        inputs=inputs,
        outputs=outputs,
        profile=profile,
        shapes=shapes,
        types=types | {manifest.precision},
        weight_bytes=weight_bytes,
        spelt_out=tuple(spelt_out),
        graph_sha256=graph_hash(manifest, graph),
        key=hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest(),
    )


def types_and_weights(path: Path) -> tuple[frozenset[str], int]:
    """Return the special element types in a graph, and the bytes of its weights.

    Weights are not read: their sizes follow from their shapes.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    numbers = {tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        named = {"to", "output_dtype"}
        numbers |= {attribute.i for attribute in node.attribute if attribute.name in named}
    weight_bytes = sum(
        math.ceil(math.prod(tensor.dims) * _bits(tensor.data_type) / 8)
        for tensor in graph.initializer
    )
    return frozenset(_TYPES[number] for number in numbers if number in _TYPES), weight_bytes


def _bits(data_type: int) -> int:
    """Return the size of an element in a file, bits."""
    if _TYPES.get(data_type) in ("fp4", "int4"):
        return 4
    return int(onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8


def _writes_in_place(outputs: Sequence[TensorSpec]) -> bool:
    """Return whether a graph gives out the memory that it takes."""
    return any(spec.name.startswith("memory_out.") for spec in outputs)


def _profile(manifest: Manifest, graph: str) -> RowsProfile | None:
    """Return the rows of memory that a graph must take, or None if it takes none."""
    entry = manifest.graphs[graph]
    if not any(isinstance(size, str) for spec in entry.inputs for size in spec.shape):
        return None
    rows = manifest.rows
    totals = [rows.total(bucket) for bucket in manifest.memory.gist_buckets]
    if _writes_in_place(entry.outputs):
        return RowsProfile(rows_min=totals[-1], rows_opt=totals[-1], rows_max=totals[-1])
    return RowsProfile(rows_min=totals[0], rows_opt=totals[len(totals) // 2], rows_max=totals[-1])


def _shapes(
    inputs: Sequence[TensorSpec], profile: RowsProfile, num_window: int
) -> dict[str, Shapes]:
    """Return the shapes of the inputs with open sizes at the profile's three row counts."""
    tables = next((spec for spec in inputs if spec.name == "rope_cos"), None)
    own = int(tables.shape[0]) if tables is not None else 0

    def at(spec: TensorSpec, rows: int) -> tuple[int, ...]:
        return spec.bound(**{ROWS: rows, KEYS: rows + own + num_window}).fixed_shape

    return {
        spec.name: (
            at(spec, profile.rows_min),
            at(spec, profile.rows_opt),
            at(spec, profile.rows_max),
        )
        for spec in inputs
        if any(isinstance(size, str) for size in spec.shape)
    }
