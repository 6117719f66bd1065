"""Lone weights, in 8 bits beside a wide activation: found, and spelt out for TensorRT proper."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from memorywam_runtime.errors import BundleError
from memorywam_runtime.tensors import DType, encoded

__all__ = ["lone_weights", "spell_out", "spelt_out_bytes"]

_EIGHT_BITS = (
    onnx.TensorProto.INT8,
    onnx.TensorProto.FLOAT8E4M3FN,
    onnx.TensorProto.FLOAT8E5M2,
)
"""Types whose products want both operands in them; int4 in blocks is for weights alone."""
_WIDE: dict[int, tuple[DType, int]] = {
    onnx.TensorProto.FLOAT: ("float32", 4),
    onnx.TensorProto.FLOAT16: ("float16", 2),
    onnx.TensorProto.BFLOAT16: ("bfloat16", 2),
}
"""Of scales: their type and its bytes."""
_MOST_BYTES = 2_000_000_000
"""Of a graph that goes to the parser in one piece: protobuf ends at 2 GiB."""


def lone_weights(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Return the dequantizations of weights in 8 bits that meet a wide activation.

    Such are those of the graph that runs once an instruction, under every recipe of products.
    """
    stored = {one.name for one in graph.initializer if one.data_type in _EIGHT_BITS}
    wide_again = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    return [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        and node.input[0] in stored
        and any(taker.input[0] not in wide_again for taker in _takers(node.output[0], users))
    ]


def spelt_out_bytes(graph: onnx.GraphProto) -> dict[str, tuple[int, int]]:
    """Return lone weights by name, with the bytes of each as stored and once it is spelt out."""
    stored = {one.name: one for one in graph.initializer}
    found = {}
    for node in lone_weights(graph):
        count = math.prod(stored[node.input[0]].dims)
        found[node.input[0]] = count, count * _WIDE[stored[node.input[1]].data_type][1]
    return found


def spell_out(model: onnx.ModelProto, folder: Path) -> None:
    """Put what lone weights stand for in their place: the same numbers, in the type of the scales.

    Args:
        model: Changed in place; its weights may be outside.
        folder: Where they are.

    Raises:
        BundleError: more than a graph may hold itself.
    """
    graph = model.graph
    num_bytes = sum(wide for _, wide in spelt_out_bytes(graph).values())
    if num_bytes > _MOST_BYTES:
        raise BundleError(
            f"found {num_bytes / 1e9:.1f} GB of weights to be spelt out in one graph; expected at "
            f"most {_MOST_BYTES / 1e9:.1f} GB: export in fp16 or bf16, quantize with int4-weight, "
            "or use --backend tensorrt-rtx, which takes them as they are"
        )
    stored = {one.name: one for one in graph.initializer}
    for node in lone_weights(graph):
        values, scales = (
            numpy_helper.to_array(stored[name], str(folder)).astype(np.float32)
            for name in node.input[:2]
        )
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        if scales.ndim:
            scales = scales.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
        kind = stored[node.input[1]].data_type
        wide = onnx.TensorProto(name=node.output[0], data_type=kind, dims=values.shape)
        wide.raw_data = encoded(values * scales, _WIDE[kind][0]).tobytes()
        graph.initializer.append(wide)
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    used |= {value.name for value in graph.output}
    for one in stored.values():
        if one.name not in used:
            graph.initializer.remove(one)


def _takers(name: str, users: dict[str, list[onnx.NodeProto]]) -> Iterator[onnx.NodeProto]:
    """Yield what takes a tensor, turned or not."""
    for user in users.get(name, ()):
        if user.op_type == "Transpose":
            yield from _takers(user.output[0], users)
        else:
            yield user
