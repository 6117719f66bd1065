"""Copies of a bundle's graphs that also give out what goes into and comes out of products."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from memorywam_export.quantize.quantize_sites import Site
from memorywam_runtime.backends import Array, Backend, Engine, Run
from memorywam_runtime.bundle import WEIGHTS_FILE
from memorywam_runtime.errors import CheckpointError
from memorywam_runtime.manifest import DTYPES, GraphEntry, Manifest, Precision
from memorywam_runtime.tensors import TensorSpec, decoded

__all__ = ["Tap", "WatchedEngine", "taps_of", "with_taps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """One tensor inside a graph; quantization leaves its name."""

    graph: str
    label: str
    """`graph/name:input` or `graph/name:output` of the first site that has it."""
    spec: TensorSpec


def taps_of(
    sites: Iterable[Site], precision: Precision, *, outputs: bool
) -> tuple[list[Tap], dict[str, tuple[str, str]]]:
    """Return the tensors to give out, each once, and (graph, tensor) of every site by its label.

    A site with several products has `:input.1`, `:input.2` and so on for the others.

    Args:
        sites: Of graphs that are not quantized.
        precision: Of the bundle.
        outputs: What comes out of products instead of what goes in.
    """
    taps: dict[tuple[str, str], Tap] = {}
    names: dict[str, tuple[str, str]] = {}
    for site in sites:
        for number, node in enumerate(site.products):
            operand, value = node.inputs[0], node.inputs[0]
            if outputs:
                value = node.outputs[0]
            assert operand is not None
            assert operand.shape is not None
            assert value is not None
            width = site.shape[0] if outputs else site.shape[1]
            shape = (*(size for size in operand.shape.numpy()[:-1]), width)
            label = f"{site.key}:{'output' if outputs else 'input'}"
            spec = TensorSpec(
                name=value.name or "", shape=shape, dtype=DTYPES[precision], meaning=label
            )
            taps.setdefault((site.graph, spec.name), Tap(graph=site.graph, label=label, spec=spec))
            names[label if number == 0 else f"{label}.{number}"] = (site.graph, spec.name)
    return list(taps.values()), names


def with_taps(
    root: Path, folder: Path, manifest: Manifest, taps: Iterable[Tap]
) -> dict[str, GraphEntry]:
    """Write graphs with more outputs into a folder, beside a copy of the weights.

    Args:
        root: The bundle, quantized or not.
        folder: To write into.
        manifest: Of the bundle.
        taps: From `taps_of` of the bundle before it was quantized.

    Returns:
        The entries of the graphs that have taps.

    Raises:
        CheckpointError: a graph has no such tensor: the bundles are not of one export.
    """
    by_graph: dict[str, list[TensorSpec]] = {}
    for tap in taps:
        by_graph.setdefault(tap.graph, []).append(tap.spec)
    shutil.copyfile(root / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    entries = {}
    for graph, specs in by_graph.items():
        entry = manifest.graphs[graph]
        model = ir.load(root / entry.file)
        values = {value.name: value for node in model.graph for value in node.outputs}
        for spec in specs:
            value = values.get(spec.name)
            if value is None:
                raise CheckpointError(
                    f"{root}: graph '{graph}' has no tensor '{spec.name}' ({spec.meaning}); "
                    "expected the graphs of one export: quantize that bundle again"
                )
            if value.type is None:
                value.type = ir.TensorType(_ir_type(manifest.precision))
            value.shape = ir.Shape(spec.fixed_shape)
            model.graph.outputs.append(value)
        ir.save(model, folder / entry.file)
        entries[graph] = msgspec.structs.replace(entry, outputs=(*entry.outputs, *specs))
    return entries


def _ir_type(precision: Precision) -> ir.DataType:
    """Return the ONNX type of a precision."""
    types = {
        "fp32": ir.DataType.FLOAT,
        "bf16": ir.DataType.BFLOAT16,
        "fp16": ir.DataType.FLOAT16,
    }
    return types[precision]


class WatchedEngine:
    """An engine of a graph with taps in the place of the graph's own: tells all that passes."""

    def __init__(
        self,
        engine: Engine,
        backend: Backend,
        taps: Iterable[TensorSpec],
        tell: Callable[[str, NDArray[np.floating]], None],
    ) -> None:
        """Watch an engine.

        Args:
            engine: Of the graph with taps.
            backend: Its backend.
            taps: Its outputs beyond the graph's own.
            tell: Called after each run with each tap's name and values.
        """
        self._engine, self._backend, self._tell = engine, backend, tell
        self._taps = tuple(taps)

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Run:
        """Prepare a call as the graph without taps would."""
        backend = self._backend
        watched = {
            spec.name: backend.view(backend.flat(int(np.prod(spec.fixed_shape)), spec), spec)
            for spec in self._taps
        }
        run = self._engine.bind(inputs, {**outputs, **watched})

        def call() -> None:
            run()
            for spec in self._taps:
                self._tell(spec.name, decoded(backend.read(watched[spec.name]), spec.dtype))

        return call
