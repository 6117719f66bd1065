"""Graphs of a bundle computed in float64: what is exact in the numbers is equal to 15 digits."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.quantize.quantize_folds import Fold, folded

Arrays = dict[str, NDArray[np.float64]]


def with_wide_constants(model: ir.Model) -> ir.Model:
    """Have what will be put into a graph be doubles: a rule is tested, not a float's last bit."""
    for node in model.graph:
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(ir.DataType.DOUBLE)
    return model


def wide_weights(root: Path, folds: Sequence[Fold] = ()) -> dict[str, torch.Tensor]:
    """Return a bundle's weights by name, in float64, with folds."""
    found = {}
    for name, one in load_file(root / "weights.safetensors").items():
        wide = one.double()
        weight = Weight(name, tuple(wide.shape), wide.dtype, partial(torch.clone, wide))
        found[name] = folded(weight, folds).load()
    return found


def wide_outputs(
    model: ir.Model,
    names: Mapping[str, str],
    weights: Mapping[str, torch.Tensor],
    inputs: Mapping[str, NDArray[np.generic]],
) -> Arrays:
    """Return what a graph gives out in float64, by name.

    Args:
        model: The graph.
        names: Initializer to the name of its weight.
        weights: From `wide_weights`.
        inputs: Floats of any type.
    """
    proto = _in_float64(ir.to_proto(model), names, weights)
    wide = {
        name: value.astype(np.float64) if np.issubdtype(value.dtype, np.floating) else value
        for name, value in inputs.items()
    }
    found: Any = onnx.reference.ReferenceEvaluator(proto).run(None, wide)
    return dict(zip((one.name for one in proto.graph.output), found, strict=True))


def _in_float64(
    proto: onnx.ModelProto, names: Mapping[str, str], weights: Mapping[str, torch.Tensor]
) -> onnx.ModelProto:
    """Make every float of a graph a double."""
    for init in proto.graph.initializer:
        if init.name in names:
            array = weights[names[init.name]].numpy()
        elif init.data_type == TensorProto.FLOAT:
            array = numpy_helper.to_array(init).astype(np.float64)
        else:
            continue
        init.CopyFrom(numpy_helper.from_array(array, init.name))
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.CopyFrom(helper.make_attribute("to", TensorProto.DOUBLE))
    return proto
