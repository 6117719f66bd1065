"""Explicit Q/DQ into one graph: before a product's operand, behind its stored weight."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from memorywam_export.checkpoints.weights import HeaderEntry
from memorywam_export.quantize.quantize_sites import Site
from memorywam_export.quantize.quantize_weights import SCALE_SUFFIX, Quantized
from memorywam_export.recipes.recipes import Recipe

__all__ = ["Placed", "place_qdq", "point_outside"]

_IR_TYPES = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN, "int4": ir.DataType.INT4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What one site gets."""

    site: Site
    recipe: Recipe
    """Its own: under `mixed` sites differ."""
    weight: Quantized
    input_scale: float | None
    """Of the activation; None where it stays wide."""


def place_qdq(model: ir.Model, sites: Iterable[Placed]) -> None:
    """Put Q/DQ around the products of a graph; weights then hold no values until pointed outside.

    Each product has a pair of its own, even where three take one tensor: ONNX Runtime 1.31 finds
    no integer kernel for int8 that several share.

    Args:
        model: Changed in place.
        sites: Of this graph.
    """
    number = 0
    for placed in sites:
        _dequantize(model.graph, placed.recipe, placed)
        if placed.input_scale is None:
            continue
        dtype = placed.weight.scales.dtype
        for node in placed.site.products:
            _quantize_input(
                model.graph, node, placed.recipe, placed.input_scale, dtype, f"quantized.{number}"
            )
            number += 1


def point_outside(
    model: ir.Model,
    names: Mapping[str, str],
    entries: Mapping[str, HeaderEntry],
    path: Path,
) -> None:
    """Have a graph's weights point at where they lie in a weights file.

    Args:
        model: Changed in place.
        names: Initializer to the tensor's name in the file.
        entries: The file's header.
        path: The weights file, beside the graph.
    """
    for key, name in names.items():
        value, entry = model.graph.initializers[key], entries[name]
        assert value.dtype is not None
        assert value.shape is not None
        value.const_value = ir.ExternalTensor(
            location=path.name,
            offset=entry.offset,
            length=entry.num_bytes,
            dtype=value.dtype,
            shape=value.shape,
            name=key,
            base_dir=str(path.parent),
        )


def _dequantize(graph: ir.Graph, recipe: Recipe, placed: Placed) -> None:
    """Put a DequantizeLinear between a weight and all that take it."""
    weight, wide = placed.site.weight, placed.weight
    assert weight.dtype is not None
    assert recipe.weight is not None
    uses, wide_type = list(weight.uses()), weight.dtype
    scales = ir.Value(
        name=f"{weight.name}{SCALE_SUFFIX}",
        type=ir.TensorType(wide_type),
        shape=ir.Shape(wide.scales.shape),
    )
    # A place holder: where the scales lie is known when the weights file is written.
    scales.const_value = ir.tensor(np.zeros((), np.float32), name=scales.name)
    attributes = {} if wide.axis is None else {"axis": wide.axis}
    if wide.block is not None:
        attributes["block_size"] = wide.block
    node = ir.node("DequantizeLinear", [weight, scales], attributes=attributes or None)
    result = node.outputs[0]
    result.name = f"{weight.name}.dequantized"
    is_turned = wide.block is not None and placed.site.is_transposed
    weight.type, weight.shape = ir.TensorType(_IR_TYPES[recipe.weight]), ir.Shape(wide.shape)
    result.type, result.shape = ir.TensorType(wide_type), weight.shape
    graph.register_initializer(scales)
    graph.insert_before(graph[0], node)
    for user, index in uses:
        user.replace_input_with(index, result)
        if is_turned:  # what was turned in the graph is stored so
            user.outputs[0].replace_all_uses_with(result)
            graph.remove(user, safe=True)


def _quantize_input(
    graph: ir.Graph,
    product: ir.Node,
    recipe: Recipe,
    scale: float,
    dtype: torch.dtype,
    stem: str,
) -> None:
    """Have a product take its activation through the narrow type."""
    operand = product.inputs[0]
    assert operand is not None
    assert recipe.activation is not None
    narrow = _IR_TYPES[recipe.activation]
    wide = {
        torch.float32: ir.DataType.FLOAT,
        torch.float16: ir.DataType.FLOAT16,
        torch.bfloat16: ir.DataType.BFLOAT16,
    }[dtype]
    constants = []
    for name, kind, value in (("scale", wide, scale), ("zero_point", narrow, 0.0)):
        array = np.array(value, kind.numpy())
        constant = ir.Value(
            name=f"{stem}.{name}",
            type=ir.TensorType(kind),
            shape=ir.Shape(()),
            const_value=ir.Tensor(array, dtype=kind, name=f"{stem}.{name}"),
        )
        graph.register_initializer(constant)
        constants.append(constant)
    quantize = ir.node("QuantizeLinear", [operand, *constants])
    dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], *constants])
    for node, name, kind in ((quantize, "", narrow), (dequantize, ".dequantized", wide)):
        result = node.outputs[0]
        result.name = stem + name
        result.type, result.shape = ir.TensorType(kind), operand.shape
    graph.insert_before(product, [quantize, dequantize])
    product.replace_input_with(0, dequantize.outputs[0])
