"""The audit finds what must not be: wide products, copied memory, other tensors than promised."""

import json

import onnx
import pytest
from onnx import helper
from tests.fakes.engines import quantized_product

from memorywam_export.engines.engine import Compiler
from memorywam_export.engines.engine_audit import Layer, Tensor, audited, memory_layers_in
from memorywam_runtime.tensors import DType, TensorSpec


def tensor(name, *shape, dtype="BF16"):
    return Tensor(name=name, shape=shape, dtype=dtype)


def layer(kind, inputs, output, **more):
    return Layer(name=f"{kind} {output.name}", kind=kind, inputs=inputs, outputs=(output,), **more)


def spec(name, *shape, dtype: DType = "bfloat16"):
    return TensorSpec(name=name, shape=shape, dtype=dtype, meaning="")


MEMORY, MEMORY_OUT = tensor("memory.00.k", 1, 2, 64, 8), tensor("memory_out.00.k", 1, 2, 64, 8)
NEW, ROW = tensor("new", 1, 2, 4, 8), tensor("row", 1, dtype="INT32")
QUERIES, SEEN = tensor("queries", 1, 2, 4, 8), tensor("seen", 1, 2, 4, 8)
WRITE = layer("KV_CACHE_UPDATE", (MEMORY, NEW, ROW), MEMORY_OUT)
ATTEND = layer("ATTENTION_INPUT", (QUERIES, MEMORY_OUT, MEMORY_OUT), SEEN)


def audit(layers, *, inputs=None, outputs=None, recipe="bf16", edges=None):
    """Audit one layer's memory, as the specs below promise it."""
    return audited(
        layers,
        edges=(MEMORY, MEMORY_OUT, QUERIES, SEEN) if edges is None else edges,
        inputs=inputs or [spec("memory.00.k", 1, 2, 64, 8), spec("queries", 1, 2, 4, 8)],
        outputs=outputs or [spec("seen", 1, 2, 4, 8), spec("memory_out.00.k", 1, 2, 64, 8)],
        recipe=recipe,
    )


def test_a_memory_that_is_written_and_attended_to_is_as_it_should_be():
    found = audit([WRITE, ATTEND])
    assert found.faults == ()
    assert found.entry.num_memory_writes == 1
    assert found.entry.bytes_per_write == 2 * 4 * 8 * 2
    assert found.entry.memory_copies == ()


@pytest.mark.parametrize("kind", ["CONCATENATION", "CAST", "SHUFFLE", "SLICE", "ELEMENTWISE"])
@pytest.mark.parametrize("of", [MEMORY, MEMORY_OUT], ids=["before", "after"])
def test_a_copy_of_memory_is_a_fault(kind, of):
    copy = tensor("copy", 1, 2, 64, 8)
    attend = layer("ATTENTION_INPUT", (QUERIES, copy, copy), SEEN)
    found = audit([WRITE, layer(kind, (of,), copy), attend])
    assert found.entry.memory_copies == (f"{kind} copy ({kind})",)
    assert f"1 layers copy memory, first {kind} copy" in found.faults[0]


def test_a_copy_that_nothing_reads_is_none():
    unread = layer("CAST", (MEMORY_OUT,), tensor("unread", 1, 2, 64, 8, dtype="FLOAT"))
    assert audit([WRITE, unread, ATTEND]).faults == ()


def test_memory_as_queries_or_as_what_is_written_is_a_fault():
    odd = layer("ATTENTION_INPUT", (MEMORY_OUT, MEMORY_OUT, MEMORY_OUT), SEEN)
    assert "copy memory" in audit([WRITE, odd]).faults[0]
    odd = layer("KV_CACHE_UPDATE", (MEMORY, MEMORY, ROW), MEMORY_OUT)
    assert any("fewer than memory holds" in fault for fault in audit([odd, ATTEND]).faults)


def test_a_memory_that_is_not_written_is_a_fault():
    passed = layer("IDENTITY", (MEMORY,), MEMORY_OUT)
    faults = audit([passed, ATTEND]).faults
    assert "0 writes into memory; expected one for each of 1 tensors" in faults[0]


def test_a_memory_written_to_anothers_output_is_a_fault():
    second, second_out = tensor("memory.00.v", 1, 2, 64, 8), tensor("memory_out.00.v", 1, 2, 64, 8)
    crossed = [
        layer("KV_CACHE_UPDATE", (MEMORY, NEW, ROW), second_out),
        layer("KV_CACHE_UPDATE", (second, NEW, ROW), MEMORY_OUT),
        ATTEND,
    ]
    names = ("memory.00.k", "memory.00.v"), ("memory_out.00.k", "memory_out.00.v")
    inputs, outputs = ([spec(name, 1, 2, 64, 8) for name in part] for part in names)
    faults = audit(
        crossed, inputs=inputs, outputs=outputs, edges=(MEMORY, MEMORY_OUT, second, second_out)
    ).faults
    assert "2 writes into memory; expected one for each of 2 tensors, not so" in faults[0]


def test_layers_that_write_different_numbers_of_tokens_are_a_fault():
    second, second_out = tensor("memory.00.v", 1, 2, 64, 8), tensor("memory_out.00.v", 1, 2, 64, 8)
    uneven = layer("KV_CACHE_UPDATE", (second, tensor("more", 1, 2, 5, 8), ROW), second_out)
    names = ("memory.00.k", "memory.00.v"), ("memory_out.00.k", "memory_out.00.v")
    inputs, outputs = ([spec(name, 1, 2, 64, 8) for name in part] for part in names)
    (fault,) = audit(
        [WRITE, uneven], inputs=inputs, outputs=outputs,
        edges=(MEMORY, MEMORY_OUT, second, second_out),
    ).faults  # fmt: skip
    assert "[4, 5] tokens" in fault


def test_other_shapes_and_types_than_the_manifests_are_faults():
    faults = audit([WRITE, ATTEND], edges=(MEMORY, MEMORY_OUT, SEEN)).faults
    assert faults == ("'queries' is None; expected ('BF16', (1, 2, 4, 8))",)
    wide = tensor("queries", 1, 2, 4, 8, dtype="FLOAT")
    faults = audit([WRITE, ATTEND], edges=(MEMORY, MEMORY_OUT, SEEN, wide)).faults
    assert faults == ("'queries' is ('FLOAT', (1, 2, 4, 8)); expected ('BF16', (1, 2, 4, 8))",)


def product(*, cast_to=None, stored="BF16", kind="MATRIX_MULTIPLY"):
    """Return a product with a constant weight, cast if so asked."""
    weight, used = tensor("w", 8, 4, dtype=stored), tensor("u", 8, 4, dtype=cast_to or stored)
    layers = [layer("CONSTANT", (), weight)]
    layers.append(layer("CAST" if cast_to else "SHUFFLE", (weight,), used))
    x = tensor("x", 1, 8, dtype=used.dtype)
    layers.append(layer(kind, (x, used), tensor("y", 1, 4, dtype=used.dtype)))
    return layers


def product_audit(layers, recipe="bf16"):
    return audited(layers, edges=(), inputs=(), outputs=[spec("y", 1, 4)], recipe=recipe)


def test_weights_count_in_the_type_that_the_product_reads():
    assert product_audit(product()).entry.gemm_weight_bytes == {"BF16": 64}
    assert product_audit(product(cast_to="FLOAT")).entry.gemm_weight_bytes == {"FLOAT": 128}


def wide(found):
    return [fault for fault in found.faults if "wider" in fault]


def test_a_wider_product_than_the_recipe_is_a_fault():
    assert not wide(product_audit(product()))
    (fault,) = wide(product_audit(product(cast_to="FLOAT")))
    assert "1 products are wider than bf16, first MATRIX_MULTIPLY y (MATRIX_MULTIPLY)" in fault
    assert not wide(product_audit(product(cast_to="FLOAT"), recipe="fp32"))
    assert wide(product_audit(product(), recipe="fp8"))


def test_a_product_of_computed_tensors_may_be_wider():
    """The scores of cross-attention are in float32 by design."""
    a, b = (tensor(name, 4, 4, dtype="FLOAT") for name in "ab")
    between = layer("MATRIX_MULTIPLY", (a, b), tensor("y", 4, 4, dtype="FLOAT"))
    found = product_audit([between])
    assert not wide(found)
    assert found.entry.gemm_weight_bytes == {}


def test_a_convolution_that_holds_its_weights_counts_them():
    x = tensor("x", 1, 3, 8, 8)
    convolution = layer("CONVOLUTION", (x,), tensor("y", 1, 4, 8, 8), kernel_elements=108)
    assert product_audit([convolution]).entry.gemm_weight_bytes == {"BF16": 216}
    assert wide(product_audit([convolution], recipe="fp8"))


def test_norms_in_float32_are_as_trained():
    x = tensor("x", 1, 8, dtype="FLOAT")
    norm = layer("NORMALIZATION", (x, x, x), tensor("y", 1, 8, dtype="FLOAT"))
    assert not wide(product_audit([norm]))


def test_a_quantized_weight_counts_as_it_is_stored(tmp_path):
    path = quantized_product(tmp_path / "p.onnx", onnx.TensorProto.FLOAT8E4M3FN)
    network = Compiler("tensorrt-rtx").network(path, (), ())
    found = audited(network.layers(), edges=(), inputs=(), outputs=[spec("y", 4, 16)], recipe="fp8")
    assert found.entry.gemm_weight_bytes == {"FP8": 512}
    assert not wide(found)


def test_a_memory_joined_in_a_real_network_is_found(tmp_path):
    """The write is there, and beside it what the write is to spare."""
    fp16, int64 = onnx.TensorProto.FLOAT16, onnx.TensorProto.INT64
    into, out, value = "memory.00.k", "memory_out.00.k", helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("TensorScatter", [into, "new", "row"], [out], axis=2),
            helper.make_node("Concat", [out, "new"], ["joined"], axis=2),
        ],
        "joined",
        [
            value(into, fp16, (1, 2, 64, 16)),
            value("new", fp16, (1, 2, 4, 16)),
            value("row", int64, (1,)),
        ],
        [value(out, fp16, (1, 2, 64, 16)), value("joined", fp16, (1, 2, 68, 16))],
    )
    opset = [helper.make_opsetid("", 24)]
    onnx.save(helper.make_model(graph, opset_imports=opset), tmp_path / "m.onnx")
    network = Compiler("tensorrt-rtx").network(tmp_path / "m.onnx", (), ())
    found = audited(
        network.layers(),
        edges=(*network.inputs(), *network.outputs()),
        inputs=[spec("memory.00.k", 1, 2, 64, 16, dtype="float16")],
        outputs=[
            spec("memory_out.00.k", 1, 2, 64, 16, dtype="float16"),
            spec("joined", 1, 2, 68, 16, dtype="float16"),
        ],
        recipe="fp16",
    )
    (fault,) = found.faults
    assert "1 layers copy memory" in fault
    assert "(CONCATENATION)" in fault
    assert found.entry.bytes_per_write == 2 * 4 * 16 * 2


def test_the_inspectors_copies_of_memory_are_found():
    def listed(name, kind, *inputs):
        return {
            "Name": name,
            "LayerType": kind,
            "Inputs": [{"Name": tensor_name} for tensor_name in inputs],
            "Outputs": [{"Name": f"{name}.out"}],
        }

    information = json.dumps(
        {
            "Layers": [
                listed("a", "Reformat", "memory.00.k"),
                listed("b", "Reformat", "latent"),
                listed("c", "kgen", "memory.00.k"),
                "a name alone",
            ],
            "Bindings": [],
        }
    )
    assert memory_layers_in(information, ["memory.00.k"]) == ("a (Reformat)",)
