"""The narrow window into one graph: behind the wide rows where it is read, beside them as given."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from memorywam_export.graphs.graph_specs import KEYS
from memorywam_runtime.manifest import GraphEntry, Manifest, MemoryQuantization, QuantizationRecipe
from memorywam_runtime.tensors import TensorSpec

__all__ = ["with_narrow_window"]

_IR_TYPES = {"int8": ir.DataType.INT8, "float8e4m3fn": ir.DataType.FLOAT8E4M3FN}
_BIASES = ("visual_bias", "gist_bias", "key_bias")
_ROW_AXIS = 2
"""Of keys and values [1, heads, rows, head_dim]."""


def with_narrow_window(
    model: ir.Model,
    graph: str,
    manifest: Manifest,
    memory: MemoryQuantization,
    recipe: QuantizationRecipe,
) -> GraphEntry:
    """Have a graph read its window from narrow tensors; `cache_update` gives narrow rows out, too.

    Wherever attention takes memory, the window comes dequantized behind all wide rows, and has the
    last of the key biases.

    Args:
        model: Changed in place.
        graph: Its name.
        manifest: Of the bundle whose graph it is, wide.
        memory: Types and scales.
        recipe: That asks for it.

    Returns:
        The graph's entry; the old one if it takes no memory.
    """
    entry = manifest.graphs[graph]
    taken = [value for value in model.graph.inputs if _name(value).startswith("memory.")]
    if not taken:
        return entry
    edit = _Edit(model.graph, manifest, memory)
    inputs = [spec for value in taken for spec in edit.read(value)]
    outputs = []
    if graph == "cache_update":
        outputs = [edit.give(value) for value in taken]
    _forget_open_shapes(model.graph)
    for value in model.graph.inputs:
        if _name(value) in _BIASES:
            value.shape = ir.Shape([1, 1, 1, KEYS])
    cost = entry.cost
    if cost is not None:
        flops = cost.flops + edit.num_rows * cost.flops_per_row
        cost = msgspec.structs.replace(cost, flops=flops)
    return msgspec.structs.replace(
        entry,
        inputs=(*map(_with_keys, entry.inputs), *inputs),
        outputs=(*entry.outputs, *outputs),
        cost=cost,
        quantized=recipe,
    )


class _Edit:
    """Changes one graph, tensor by tensor."""

    def __init__(self, graph: ir.Graph, manifest: Manifest, memory: MemoryQuantization) -> None:
        contract = manifest.contract
        self._graph = graph
        self._memory = memory
        self._dtype = _IR_TYPES[memory.dtype]
        self._is_in_place = manifest.cache_write == "in_place"
        self._heads = contract.num_heads, contract.head_dim
        self.num_visual = contract.num_visual
        self.num_rows = contract.num_ring_slots * contract.num_visual

    def read(self, memory: ir.Value) -> Iterator[TensorSpec]:
        """Put the window behind a memory tensor wherever that is read; yield the new input."""
        joins = list(self._joins(memory))
        if not joins:
            return
        tail = _name(memory).removeprefix("memory.")
        spec = self._spec(f"window.{tail}", self.num_rows, "window after RoPE, narrow", tail)
        window = ir.Value(
            name=spec.name, type=ir.TensorType(self._dtype), shape=ir.Shape(spec.shape)
        )
        self._graph.inputs.append(window)
        node = ir.node("DequantizeLinear", [window, *self._constants(memory)])
        wide = node.outputs[0]
        wide.name, wide.type, wide.shape = f"{spec.name}.dequantized", memory.type, window.shape
        self._graph.insert_before(self._graph[0], node)
        for before, parts in joins:
            joined = ir.node("Concat", [*parts, wide], attributes={"axis": _ROW_AXIS})
            result = joined.outputs[0]
            result.name, result.type = f"{parts[0].name}.{before.name}.all", memory.type
            whole = before.outputs[0]
            uses = [(user, index) for user, index in whole.uses() if user is not joined]
            self._graph.insert_after(before, joined)
            for user, index in uses:
                user.replace_input_with(index, result)
            if before.op_type == "Concat":
                self._graph.remove(before, safe=True)
        yield spec

    def give(self, memory: ir.Value) -> TensorSpec:
        """Give a layer's new visual rows out in 8 bits; return the new output."""
        tail = _name(memory).removeprefix("memory.")
        new = self._new_rows(memory, tail)
        spec = self._spec(f"window_new.{tail}", self.num_visual, "new visual rows, narrow", tail)
        stem = f"window_new.{tail}"
        bounds = [
            self._constant(f"{stem}.{name}", np.array([value], np.int64), ir.DataType.INT64)
            for name, value in (("first", 0), ("end", self.num_visual), ("axis", _ROW_AXIS))
        ]
        visual = ir.node("Slice", [new, *bounds])
        visual.outputs[0].name, visual.outputs[0].type = f"{stem}.wide", memory.type
        visual.outputs[0].shape = ir.Shape(spec.shape)
        narrow = ir.node("QuantizeLinear", [visual.outputs[0], *self._constants(memory)])
        result = narrow.outputs[0]
        result.name, result.type = spec.name, ir.TensorType(self._dtype)
        result.shape = ir.Shape(spec.shape)
        self._graph.extend([visual, narrow])
        self._graph.outputs.append(result)
        return spec

    def _joins(self, memory: ir.Value) -> Iterator[tuple[ir.Node, list[ir.Value]]]:
        """Yield each node whose result attention reads as memory, and what stands in it."""
        for node, _ in memory.uses():
            result = node.outputs[0]
            if node.op_type == "TensorScatter" and result.uses():
                yield node, [result]
            elif node.op_type == "Concat":
                yield node, [value for value in node.inputs if value is not None]

    def _new_rows(self, memory: ir.Value, tail: str) -> ir.Value:
        """Return a layer's new rows [1, heads, L + M, head_dim]."""
        if not self._is_in_place:
            return next(value for value in self._graph.outputs if value.name == f"new.{tail}")
        (scatter,) = (node for node, _ in memory.uses() if node.op_type == "TensorScatter")
        new = scatter.inputs[1]
        assert new is not None
        return new

    def _constants(self, memory: ir.Value) -> list[ir.Value]:
        """Return scale and zero point of a memory tensor's narrow rows, made on the first call."""
        tail = _name(memory).removeprefix("memory.")
        layer, _, part = tail.partition(".")
        scales = self._memory.key_scales if part == "k" else self._memory.value_scales
        assert memory.dtype is not None
        return [
            self._constant(f"window.{tail}.scale", np.array(scales[int(layer)]), memory.dtype),
            self._constant(f"window.{tail}.zero_point", np.array(0.0), self._dtype),
        ]

    def _constant(self, name: str, array: NDArray[Any], dtype: ir.DataType) -> ir.Value:
        """Return an initializer, made on the first call."""
        if name not in self._graph.initializers:
            value = ir.Value(
                name=name,
                type=ir.TensorType(dtype),
                shape=ir.Shape(array.shape),
                const_value=ir.Tensor(array.astype(dtype.numpy()), dtype=dtype, name=name),
            )
            self._graph.register_initializer(value)
        return self._graph.initializers[name]

    def _spec(self, name: str, num_rows: int, meaning: str, tail: str) -> TensorSpec:
        """Return the spec of narrow rows."""
        layer, _, part = tail.partition(".")
        heads, head_dim = self._heads
        return TensorSpec(
            name=name,
            shape=(1, heads, num_rows, head_dim),
            dtype=self._memory.dtype,
            meaning=f"{meaning}, layer {int(layer)}, {'keys' if part == 'k' else 'values'}",
        )


def _forget_open_shapes(graph: ir.Graph) -> None:
    """Forget inferred shapes that grow with memory: attention has more keys now."""
    for node in graph:
        for value in node.outputs:
            if value.is_graph_output() or value.shape is None:
                continue
            if not all(isinstance(size, int) for size in value.shape):
                value.shape = None


def _with_keys(spec: TensorSpec) -> TensorSpec:
    """Return a key bias that is as long as the keys, which are more than the wide rows."""
    if spec.name not in _BIASES:
        return spec
    return msgspec.structs.replace(spec, shape=(*spec.shape[:-1], KEYS))


def _name(value: ir.Value) -> str:
    """Return a value's name; those at a graph's edge have one."""
    assert value.name is not None
    return value.name
