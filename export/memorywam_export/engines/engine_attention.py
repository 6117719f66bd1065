"""Attention as the compiler should have it: keys untouched, queries scaled once and exactly."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

__all__ = ["drop_softmax_precision", "prepare_attention", "scales_in"]

_SUFFIX = "_AttentionInput"
"""The parser's name for a node's first layer ends so."""


def drop_softmax_precision(model: onnx.ModelProto) -> None:
    """Remove the wish for a float32 softmax, which TensorRT's parser refuses to be told.

    Its fused attention sums in float32 anyway; any other precision stays, and is refused.
    """
    for node in model.graph.node:
        if node.op_type == "Attention":
            kept = [
                attribute
                for attribute in node.attribute
                if attribute.name != "softmax_precision" or attribute.i != onnx.TensorProto.FLOAT
            ]
            del node.attribute[:]
            node.attribute.extend(kept)


def scales_in(model: bytes) -> dict[str, float]:
    """Return the scale of every attention node that states one, by the node's name."""
    nodes = onnx.ModelProto.FromString(model).graph.node
    return {
        node.name: attribute.f
        for node in nodes
        if node.op_type == "Attention"
        for attribute in node.attribute
        if attribute.name == "scale"
    }


def prepare_attention(
    trt: Any,  # noqa: ANN401 - the vendor's module
    network: Any,  # noqa: ANN401 - the vendor's object
    scales: Mapping[str, float],
) -> list[NDArray[np.float32]]:
    """Rewrite what the parser makes of every attention.

    As ONNX has it, queries and keys are multiplied by sqrt(scale) each. The keys are the whole
    memory, which is only to be read; and the parser computes that factor in the type of the
    queries: in bfloat16, rounded at each step, it makes every score of heads of 128 0.29 % too
    small. Here the queries alone are multiplied, by the scale rounded once: 0.01 % off.

    Where no fused kernel exists (float32, the encoder's single wide head), attention may be
    decomposed; without leave to do so the build fails.

    Args:
        trt: The backend's package.
        network: Just parsed.
        scales: Of the nodes that state one; 1 / sqrt(head width) for all others.

    Returns:
        Values that the network points to: keep them as long as the network.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    kept = []
    for layer in layers:
        if layer.type != trt.LayerType.ATTENTION_INPUT:
            continue
        layer.__class__ = trt.IAttentionInputLayer
        attention = layer.attention
        attention.decomposable = True
        queries, keys = (_unscaled(trt, makers, attention.get_input(i)) for i in range(2))
        if queries is None or keys is None:
            continue  # scaled in another way: as the parser left it
        default = 1 / math.sqrt(queries.shape[-1])
        value = np.array([scales.get(layer.name.removesuffix(_SUFFIX), default)], np.float32)
        kept.append(value)
        constant = network.add_constant((1,) * len(queries.shape), trt.Weights(value))
        constant.name = f"{layer.name}_scale"
        factor = network.add_cast(constant.get_output(0), queries.dtype)
        product = trt.ElementWiseOperation.PROD
        scaled = network.add_elementwise(queries, factor.get_output(0), product)
        scaled.name = f"{layer.name}_queries"
        attention.set_input(0, scaled.get_output(0))
        attention.set_input(1, keys)
        if attention.mask is not None and _is_widened(trt, makers, queries):
            _spell_out(trt, network, attention, (scaled.get_output(0), keys))
    return kept


def _is_widened(trt: Any, makers: Mapping[str, Any], tensor: Any) -> bool:  # noqa: ANN401
    """Return whether a float32 tensor was cast from a narrower one."""
    maker = makers.get(tensor.name)
    if maker is None or maker.type != trt.LayerType.CAST:
        return False
    return bool(tensor.dtype == trt.float32 and maker.get_input(0).dtype != trt.float32)


def _spell_out(
    trt: Any,  # noqa: ANN401 - the vendor's module
    network: Any,  # noqa: ANN401 - the vendor's object
    attention: Any,  # noqa: ANN401 - the vendor's object
    operands: tuple[Any, Any],
) -> None:
    """Replace an attention by its products and softmax.

    Of one whose operands are widened to float32, TensorRT-RTX 1.7.1 takes the narrow operands but
    leaves the mask wide, and then refuses its own sum of the two.
    """
    queries, keys = operands
    plain, turned = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
    result = attention.get_output(0)
    scores = network.add_matrix_multiply(queries, plain, keys, turned).get_output(0)
    add = trt.ElementWiseOperation.SUM
    seen = network.add_elementwise(scores, attention.mask, add).get_output(0)
    softmax = network.add_softmax(seen)
    softmax.axes = 1 << (len(queries.shape) - 1)
    product = network.add_matrix_multiply(
        softmax.get_output(0), plain, attention.get_input(2), plain
    )
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_inputs):
            found = layer.get_input(place)
            if found is not None and found.name == result.name:
                layer.set_input(place, product.get_output(0))


def _unscaled(trt: Any, makers: Mapping[str, Any], tensor: Any) -> Any:  # noqa: ANN401
    """Return what the parser multiplied by one number to get this tensor, or None."""
    maker = makers.get(tensor.name)
    if maker is None or maker.type != trt.LayerType.ELEMENTWISE:
        return None
    maker.__class__ = trt.IElementWiseLayer
    if maker.op != trt.ElementWiseOperation.PROD or set(maker.get_input(1).shape) != {1}:
        return None
    return maker.get_input(0)
