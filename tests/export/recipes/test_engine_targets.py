"""What the table says of architectures and element types, and that the compiler agrees."""

import onnx
import pytest
from tests.fakes.engines import compiled_bundle, quantized_product

from memorywam_export.engines.engine import Compiler
from memorywam_export.engines.engine_jobs import jobs_of, types_and_weights
from memorywam_export.recipes.engine_targets import (
    ARCHITECTURES,
    TARGETS,
    check_target,
    check_types,
)
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import BundleError, InputError

RTX = "tensorrt-rtx"


@pytest.fixture(scope="module")
def compiler():
    return Compiler(RTX)


@pytest.fixture(scope="module")
def state_network(tmp_path_factory, tiny_bundle, compiler):
    """Return the network of the smallest graph, in a precision: of bundles that others need too."""

    def network(precision):
        root = tiny_bundle
        if precision != "fp32":
            preset = {"fp16": "tiny", "bf16": "tiny-fastwam"}[precision]
            root = compiled_bundle(tmp_path_factory, preset, precision)
        manifest = read_manifest(root)
        entry = manifest.graphs["state_kv"]
        return compiler.network(root / entry.file, entry.inputs, entry.outputs)

    return network


@pytest.mark.proof
def test_every_target_of_the_table_is_one_of_the_compilers_and_no_other(state_network):
    network = state_network("fp16")
    for target in ARCHITECTURES:
        if target in TARGETS[RTX]:
            assert len(network.build([target])) > 1 << 20
        else:
            with pytest.raises(InputError, match=f"found target {target}; tensorrt_rtx 1"):
                network.build([target])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sm_87", ("Jetson Orin", "--backend tensorrt --target sm_87", "JetPack")),
        ("sm_90", ("H100", "--backend tensorrt --target sm_90", "pip install tensorrt")),
        ("sm_99", ("unknown target 'sm_99'", "sm_89 (RTX 40")),
        ("89", ("unknown target '89'", "sm_89 (RTX 40")),
    ],
)
def test_a_target_that_cannot_be_says_what_can(target, said):
    with pytest.raises(InputError) as caught:
        check_target(RTX, target)
    for words in said:
        assert words in str(caught.value)


def test_tensorrt_proper_builds_for_every_architecture():
    for target in ARCHITECTURES:
        check_target("tensorrt", target)


@pytest.mark.proof
@pytest.mark.parametrize(
    ("precision", "reason"),
    [("bf16", "HW-specific datatypes: b16"), ("fp32", "FP32 GEMM is not supported")],
)
def test_the_compiler_refuses_on_turing_what_the_table_refuses(state_network, precision, reason):
    with pytest.raises(InputError, match="export with --precision fp16"):
        check_types(RTX, "sm_75", {precision})
    with pytest.raises(BundleError, match=reason):
        state_network(precision).build(["sm_75"])
    check_types(RTX, "sm_80", {precision})
    assert state_network(precision).build(["sm_80"])


@pytest.mark.parametrize(
    ("element_type", "name", "refused", "taken"),
    [
        (onnx.TensorProto.FLOAT8E4M3FN, "fp8", ("sm_80", "sm_86"), ("sm_89", "sm_120")),
        (onnx.TensorProto.INT8, "int8", (), ("sm_75", "sm_86")),
    ],
    ids=["fp8", "int8"],
)
def test_the_compiler_agrees_on_quantized_types(
    tmp_path, compiler, element_type, name, refused, taken
):
    path = quantized_product(tmp_path / "product.onnx", element_type)
    types, weight_bytes = types_and_weights(path)
    assert types == {name}
    assert weight_bytes == 32 * 16 + 2 + 1
    network = compiler.network(path, (), ())
    for target in refused:
        with pytest.raises(InputError, match="quantize to int8"):
            check_types(RTX, target, types)
        with pytest.raises(BundleError, match="HW-specific datatypes: fp8_e4m3"):
            network.build([target])
    for target in taken:
        check_types(RTX, target, types)
        assert network.build([target])


def test_fp4_needs_blackwell():
    for target in ("sm_86", "sm_89"):
        with pytest.raises(InputError, match="on sm_120, sm_121: quantize to fp8"):
            check_types(RTX, target, {"fp4"})
    check_types(RTX, "sm_120", {"fp4"})
    check_types("tensorrt", "sm_100", {"fp4"})


def test_tensorrt_proper_has_float32_products_on_turing():
    check_types("tensorrt", "sm_75", {"fp32"})


def test_an_unknown_type_is_refused():
    with pytest.raises(InputError, match="unknown element type 'fp6'; expected one of fp16"):
        check_types(RTX, "sm_89", {"fp6"})


def test_the_types_of_a_bundle_are_its_precision(tmp_path_factory):
    root = compiled_bundle(tmp_path_factory, "tiny-fastwam", "bf16")
    jobs = jobs_of(root, read_manifest(root), backend=RTX, version="1", target="sm_89")
    assert {job.types for job in jobs} == {frozenset({"bf16"})}
