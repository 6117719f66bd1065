"""ONNX passes of this package's own; each says what it changed."""

import onnx_ir as ir

__all__ = ["widen_softmax"]

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def widen_softmax(model: ir.Model) -> int:
    """Have every softmax computed in float32, whatever its operands; return how many changed.

    torch computes it so on every device. ONNX takes the operands' type where nothing else is
    said: in bfloat16, 2,000 weights of a softmax sum to anything between 0.9 and 1.1.

    Args:
        model: Functions inlined; changed in place.
    """
    changed = 0
    for node in list(model.graph):
        operand = node.inputs[0] if node.inputs else None
        dtype = None if operand is None else operand.dtype
        if node.op_type == "Attention" and dtype in _NARROW:
            node.attributes["softmax_precision"] = ir.AttrInt64(
                "softmax_precision", ir.DataType.FLOAT.value
            )
            changed += 1
        # What the exporter spelt out carries no type; a cast of float32 to float32 changes nothing.
        elif node.op_type == "Softmax" and dtype in (*_NARROW, None):
            _between_casts(model.graph, node)
            changed += 1
    return changed


def _between_casts(graph: ir.Graph, node: ir.Node) -> None:
    """Compute a node of one input and output in float32, between two casts."""
    value, result = node.inputs[0], node.outputs[0]
    users = list(result.uses())
    wide = ir.node("Cast", [value], attributes={"to": ir.DataType.FLOAT})
    back = ir.node("CastLike", [result, value])
    graph.insert_before(node, wide)
    graph.insert_after(node, back)
    node.replace_input_with(0, wide.outputs[0])
    for user, index in users:
        user.replace_input_with(index, back.outputs[0])
