"""Sixteen-bit graphs keep norms, softmax and the Euler state in float32."""

import onnx_ir as ir
import pytest
from tests.fakes.bundles import bundle_once

from memorywam_export.graphs.passes import widen_softmax
from memorywam_runtime.bundle import read_manifest

NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@pytest.fixture(
    scope="module",
    params=[("bf16", 24), pytest.param(("fp16", 20), marks=pytest.mark.proof)],
    ids=str,
)
def graphs(request, tmp_path_factory):
    """The graphs of a tiny bundle in sixteen bits, by name."""
    precision, opset = request.param
    root = bundle_once(tmp_path_factory, opset, precision=precision)
    graphs = read_manifest(root).graphs
    return {name: ir.load(root / entry.file).graph for name, entry in graphs.items()}


def nodes(graphs, *kinds):
    return [(name, node) for name, graph in graphs.items() for node in graph
            if node.op_type in kinds]  # fmt: skip


def test_every_softmax_is_in_float32(graphs):
    found = nodes(graphs, "Softmax", "Attention")
    assert {"cache_update", "action_step", "vae_first"} <= {name for name, _ in found}
    for name, node in found:
        if node.op_type == "Attention":
            wide = node.inputs[0].dtype == ir.DataType.FLOAT
            assert wide or node.attributes["softmax_precision"].as_int() == 1, name
        else:
            cast = node.inputs[0].producer()
            assert cast is not None, name
            assert cast.op_type == "Cast", name
            assert cast.attributes["to"].as_int() == ir.DataType.FLOAT, name


def test_every_norm_is_in_float32(graphs):
    """LayerNormalization says so by its stash_type; the others are spelt out."""
    for name, node in nodes(graphs, "LayerNormalization"):
        assert node.attributes["stash_type"].as_int() == ir.DataType.FLOAT, name
    spelt_out = nodes(graphs, "ReduceL2", "Pow", "Sqrt", "Reciprocal")
    assert len(spelt_out) > 10
    for name, node in spelt_out:
        assert node.inputs[0].dtype not in NARROW, (name, node.op_type)
        if node.op_type in ("ReduceL2", "Pow"):  # the first of each norm
            assert node.inputs[0].dtype == ir.DataType.FLOAT, (name, node.op_type)


def test_actions_stay_in_float32(graphs):
    step = graphs["action_step"]
    assert step.outputs[0].name == "x_next"
    assert step.outputs[0].dtype == ir.DataType.FLOAT
    add = step.outputs[0].producer()
    assert add is not None
    assert add.op_type == "Add"
    assert {value.dtype for value in add.inputs} == {ir.DataType.FLOAT}


def test_the_bias_of_the_zero_rows_is_never_rounded(graphs):
    """log 100 in bfloat16 is 1 % off in weight."""
    for name in ("cache_update", "action_step"):
        (bias,) = [value for value in graphs[name].inputs if value.name == "text_bias"]
        seen, todo = set(), [bias]
        while todo:
            value = todo.pop()
            assert value.dtype not in NARROW, (name, value.name)
            for node in value.consumers():
                if node.op_type in ("Pad", "Expand", "Unsqueeze", "Reshape"):
                    todo += node.outputs
                seen.add(node.op_type)
        assert "Cast" not in seen


def test_a_softmax_between_casts_feeds_what_it_fed_before():
    x = ir.val("x", dtype=ir.DataType.BFLOAT16, shape=[2, 3])
    softmax = ir.node("Softmax", [x], attributes={"axis": -1})
    after = ir.node("Neg", [softmax.outputs[0]])
    graph = ir.Graph([x], [after.outputs[0]], nodes=[softmax, after], opset_imports={"": 24})
    model = ir.Model(graph, ir_version=10)
    assert widen_softmax(model) == 1
    assert [node.op_type for node in graph] == ["Cast", "Softmax", "CastLike", "Neg"]
    back = after.inputs[0]
    assert back is not None
    assert back.producer() is list(graph)[2]
    assert list(graph)[2].inputs[1] is x


def test_a_softmax_in_float32_is_left_alone():
    x = ir.val("x", dtype=ir.DataType.FLOAT, shape=[2, 3])
    softmax = ir.node("Softmax", [x], attributes={"axis": -1})
    graph = ir.Graph([x], [softmax.outputs[0]], nodes=[softmax], opset_imports={"": 24})
    assert widen_softmax(ir.Model(graph, ir_version=10)) == 0
