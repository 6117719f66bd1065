"""Why an operator is wrong: what an export writes today in its place, its weights, its runtime."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import external_data_helper, helper, numpy_helper

from memorywam_export.bisect.bisect_suspect import Suspect

__all__ = ["Cause", "embedded", "first_difference", "wrong_weight"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Which operator it is, and what is found and expected there."""

    node: str
    operator: str
    value: str
    """What the operator makes."""
    words: str


def first_difference(
    suspect: Suspect, fresh: onnx.ModelProto, value: str, aligned: set[str]
) -> Cause | None:
    """Return the first operator behind a value that an export writes otherwise today.

    Args:
        suspect: The bundle's graph.
        fresh: The same graph, exported again.
        value: What is wrong.
        aligned: Values of the bundle's graph that can be compared: only what lies between them
            and the value is looked at.
    """
    found_nodes = {node.output[0]: node for node in suspect.model.graph.node}
    constants = _constants(suspect.model), _constants(fresh)
    for node in _nodes_between(fresh, value, aligned):
        name = node.output[0]
        found = found_nodes.get(name)
        if found is None:
            words = f"found no {node.op_type} that makes '{name}'"
            return Cause(node=node.name, operator=node.op_type, value=name, words=words)
        if words := _difference(found, node, *constants):
            return Cause(node=found.name, operator=found.op_type, value=name, words=words)
    return None


def wrong_weight(
    suspect: Suspect, root: Path, nodes: list[onnx.NodeProto], weights: Mapping[str, torch.Tensor]
) -> Cause | None:
    """Return the operator whose weight is not the checkpoint's.

    Args:
        suspect: The bundle's graph.
        root: The bundle.
        nodes: The operators to look at, in order.
        weights: The module's weights by name, in the bundle's type.
    """
    tensors = {t.name: t for t in suspect.model.graph.initializer}
    users = {name: node for node in reversed(nodes) for name in node.input}
    for name in (n for node in nodes for n in node.input if n in tensors and n in weights):
        found = numpy_helper.to_array(embedded(tensors[name], root)).astype(np.float64)
        wanted = weights[name].double().numpy()
        if found.shape == wanted.shape:
            largest = float(np.abs(found - wanted).max(initial=0.0))
            eps = torch.finfo(weights[name].dtype).eps
            if largest <= eps * max(float(np.abs(wanted).max(initial=0.0)), 1.0):
                continue
            words = f"weight '{name}' is not the checkpoint's: {largest:.2g} apart"
        else:
            words = f"weight '{name}': found shape {[*found.shape]}; expected {[*wanted.shape]}"
        node = users[name]
        return Cause(node=node.name, operator=node.op_type, value=node.output[0], words=words)
    return None


def embedded(tensor: onnx.TensorProto, root: Path) -> onnx.TensorProto:
    """Return a copy of a weight with its values inside.

    Args:
        tensor: One that may point into the bundle's weights file.
        root: The bundle.
    """
    copy = onnx.TensorProto()
    copy.CopyFrom(tensor)
    if external_data_helper.uses_external_data(copy):
        external_data_helper.load_external_data_for_tensor(copy, str(root))
        copy.data_location = onnx.TensorProto.DEFAULT
        del copy.external_data[:]
    return copy


def _nodes_between(model: onnx.ModelProto, value: str, stop: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that make a value from the nearest values in a set, in order."""
    producers = {name: node for node in model.graph.node for name in node.output}
    passed, left = set[str](), [value]
    while left:
        name = left.pop()
        if name in passed or name not in producers or (name in stop and name != value):
            continue
        passed.add(name)
        left += producers[name].input
    return [node for node in model.graph.node if passed & set(node.output)]


def _constants(model: onnx.ModelProto) -> dict[str, str]:
    """Return the constants inside a graph as text: their names differ, their values must not."""
    return {
        t.name: f"{(values := numpy_helper.to_array(t)).dtype} {values.tolist()}"
        for t in model.graph.initializer
        if not external_data_helper.uses_external_data(t)
    }


def _difference(
    found: onnx.NodeProto,
    wanted: onnx.NodeProto,
    found_constants: Mapping[str, str],
    wanted_constants: Mapping[str, str],
) -> str:
    """Return in words the first thing in which two nodes differ; nothing if they do not."""
    if found.op_type != wanted.op_type:
        return f"found operator {found.op_type}; expected {wanted.op_type}"
    attributes = [
        {a.name: helper.get_attribute_value(a) for a in node.attribute} for node in (found, wanted)
    ]
    for name in sorted({*attributes[0], *attributes[1]}):
        have, want = (_text(each.get(name, "none")) for each in attributes)
        if have != want:
            return f"attribute {name}: found {have}; expected {want}"
    inputs = [found_constants.get(name, f"'{name}'") for name in found.input]
    expected = [wanted_constants.get(name, f"'{name}'") for name in wanted.input]
    for index in range(max(len(inputs), len(expected))):
        have, want = ((each[index] if index < len(each) else "none") for each in (inputs, expected))
        if have != want:
            return f"input {index}: found {have[:80]}; expected {want[:80]}"
    return ""


def _text(value: object) -> str:
    """Return an attribute's value for people."""
    return value.decode() if isinstance(value, bytes) else str(value)
