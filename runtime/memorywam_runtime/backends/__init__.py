"""Backend and Engine: what runs a graph; chosen by name, loaded only when chosen."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from memorywam_runtime.errors import MissingPartError
from memorywam_runtime.manifest import GraphEntry
from memorywam_runtime.tensors import TensorSpec

__all__ = [
    "BACKENDS",
    "ON_CPU",
    "Array",
    "Backend",
    "Engine",
    "Run",
    "backend_from_name",
]

# From 1.29 on ONNX Runtime tells its maker what it runs, unless this is set before it loads; for
# that it writes to the home and the temporary directory too. This module loads before any backend.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Array = Any
"""A tensor where the backend keeps it; only the backend looks inside."""


class Run(Protocol):
    """One prepared call: inputs and outputs are bound, nothing is allocated by running it."""

    def __call__(self) -> None:
        """Run the graph on what is in the bound tensors now.

        It may return before the device is done: later calls, writes and reads keep their order;
        `Backend.finish` waits.
        """


class Engine(Protocol):
    """One loaded graph."""

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Run:
        """Prepare a call.

        An array may be both input and output: the graph then writes in place.

        Raises:
            InputError: a name is missing or left over.
        """
        ...


class Backend(Protocol):
    """Holds tensors and loads graphs on one device."""

    name: str
    is_async: bool
    """Calls return before the device is done."""
    num_fallbacks: int
    """Sequences that could not become one launch; a figure counts only where there are none."""
    fallback_reason: str
    """Of the last of them."""

    def load(self, path: Path, entry: GraphEntry) -> Engine:
        """Load one graph.

        Raises:
            BundleError: the file is not a graph, or its tensors are not those of the manifest.
        """
        ...

    def flat(self, num_elements: int, spec: TensorSpec) -> Array:
        """Return a zeroed one-dimensional buffer of the spec's type."""

    def view(self, flat: Array, spec: TensorSpec, first: int = 0) -> Array:
        """Return elements of a flat buffer, from `first` on, in the spec's fixed shape, shared."""

    def write(self, array: Array, values: NDArray[Any]) -> None:
        """Copy host values of the same shape into an array."""

    def read(self, array: Array) -> NDArray[Any]:
        """Return a host copy of an array."""
        ...

    def copy_rows(
        self,
        target: Array,
        target_row: int,
        source: Array,
        source_row: int,
        num_rows: int,
    ) -> None:
        """Copy rows (axis 2 of [N, H, rows, D]) between arrays, or within one."""

    def regrow(self, flat: Array, old: TensorSpec, new: TensorSpec) -> None:
        """Re-lay [N, H, rows, D] in one flat buffer for more rows; new rows are zero."""

    def zero(self, array: Array) -> None:
        """Fill an array with zeros."""

    def sequence(self, runs: Sequence[Run]) -> Run:
        """Return one call that makes several in their order: where there are CUDA graphs, one."""
        ...

    def finish(self) -> None:
        """Wait until everything asked of the device is done."""

    def save_caches(self) -> list[Path]:
        """Write what was compiled on this device, so that later starts are faster.

        Not for the tick. What cannot be written is told and compiled again.

        Returns:
            The files that are new.
        """
        ...


BACKENDS: dict[str, tuple[str, str, str]] = {
    "ort": (
        "memorywam_runtime.backends.ort",
        "OrtBackend",
        "pip install 'memorywam[cpu]'",
    ),
    "ort-cuda": (
        "memorywam_runtime.backends.ort_cuda",
        "OrtCudaBackend",
        "pip uninstall -y onnxruntime && pip install 'memorywam[gpu]'",
    ),
    "tensorrt": (
        "memorywam_runtime.backends.trt",
        "tensorrt",
        "pip install 'memorywam[tensorrt]', and TensorRT from JetPack or NVIDIA's package index",
    ),
    "tensorrt-rtx": (
        "memorywam_runtime.backends.trt",
        "tensorrt_rtx",
        "pip install 'memorywam[tensorrt-rtx]'",
    ),
    "eager": (
        "memorywam_export.eager.eager",
        "BundleBackend",
        "pip install 'memorywam[export]'",
    ),
    "compile": (
        "memorywam_export.eager.compiled",
        "CompiledBackend",
        "pip install 'memorywam[export]', and a C++ compiler",
    ),
    "eager-cuda": (
        "memorywam_export.eager.eager_cuda",
        "eager_cuda",
        "pip install 'memorywam[export]', with a torch for the GPU",
    ),
    "compile-cuda": (
        "memorywam_export.eager.eager_cuda",
        "compiled_cuda",
        "pip install 'memorywam[export]', with a torch for the GPU",
    ),
}
"""Name to (module, what makes it there, how to get what it needs)."""
ON_CPU = ("ort", "eager", "compile")
"""Those that compute on the CPU, and take `num_threads`."""


def backend_from_name(name: str, **options: object) -> Backend:
    """Return a new backend.

    Args:
        name: One of `BACKENDS`.
        options: Passed to the backend.

    Raises:
        MissingPartError: unknown name, or its library is not installed.
    """
    if name not in BACKENDS:
        raise MissingPartError(f"unknown backend '{name}'; expected one of {', '.join(BACKENDS)}")
    module, maker, remedy = BACKENDS[name]
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise MissingPartError(f"backend '{name}' cannot be loaded: {error}; {remedy}") from error
    backend: Backend = getattr(loaded, maker)(**options)
    return backend
