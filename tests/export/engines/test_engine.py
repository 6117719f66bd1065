"""The door to the compiler: every graph of every preset compiles, ahead of time, without a GPU."""

import ctypes
import importlib.metadata
import math
import sys

import onnx
import pytest
from onnx import helper
from tests.fakes.engines import compiled_bundle

from memorywam_export.engines import engine
from memorywam_export.engines.engine import Compiler, device_target
from memorywam_export.engines.engine_audit import audited
from memorywam_export.engines.engine_jobs import jobs_of
from memorywam_export.recipes.engine_targets import check_rewrites
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import BundleError, InputError, MissingPartError

RTX = "tensorrt-rtx"
TARGETS = ("sm_80", "sm_86", "sm_89", "sm_120")


@pytest.fixture(scope="module")
def compiler():
    return Compiler(RTX)


def jobs_in(root):
    return jobs_of(root, read_manifest(root), backend=RTX, version="1", target="sm_89")


def job_in(root, graph):
    return next(job for job in jobs_in(root) if job.graph == graph)


def network_of(compiler, job):
    return compiler.network(job.path, job.inputs, job.outputs)


def audit_of(network, job, recipe):
    edges = (*network.inputs(), *network.outputs())
    return audited(
        network.layers(), edges=edges, inputs=job.inputs, outputs=job.outputs, recipe=recipe
    )


def compiles(compiler, root, targets=TARGETS):
    """Compile every graph for all targets at once, and check what the audit says of each."""
    manifest = read_manifest(root)
    contract, plan = manifest.contract, manifest.memory
    new_tokens = {
        "cache_update": contract.num_frame_tokens,
        "action_step": contract.actions.horizon,
    }
    for job in jobs_in(root):
        network = network_of(compiler, job)
        audit = audit_of(network, job, manifest.precision)
        assert audit.faults == (), job.graph
        entry = audit.entry
        if manifest.cache_write == "in_place" and job.graph in new_tokens:
            assert entry.num_memory_writes == 2 * contract.num_layers
            assert entry.bytes_per_write == new_tokens[job.graph] * plan.bytes_per_token
            assert entry.memory_copies == ()
        else:
            assert entry.num_memory_writes == entry.bytes_per_write == 0
        assert entry.gemm_share == {
            {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}[manifest.precision]: 1.0
        }
        built = network.build(targets, profile=job.shapes)
        assert len(built) > job.weight_bytes


# Every export costs ten seconds or more: all forms in all precisions are in proof.
@pytest.mark.parametrize(
    ("preset", "precision"),
    [pytest.param("tiny", "fp16", marks=pytest.mark.proof), ("tiny-fastwam", "bf16")],
)
def test_every_graph_compiles_for_every_target(tmp_path_factory, compiler, preset, precision):
    compiles(compiler, compiled_bundle(tmp_path_factory, preset, precision))


def test_every_graph_compiles_in_float32(tiny_bundle_in_place, compiler):
    compiles(compiler, tiny_bundle_in_place)


def test_turing_computes_nothing_in_float32(tmp_path_factory, compiler):
    job = job_in(compiled_bundle(tmp_path_factory, "tiny", "fp16"), "cache_update")
    with pytest.raises(BundleError, match="FP32 GEMM is not supported"):
        network_of(compiler, job).build(["sm_75"])
    with pytest.raises(InputError, match="--no-rewrite collapse-padding"):
        check_rewrites(RTX, "sm_75", read_manifest(job.path.parent).rewrites)


@pytest.mark.proof
def test_without_those_products_turing_computes_float16(tmp_path_factory, compiler):
    without = ("collapse-padding",)
    root = compiled_bundle(tmp_path_factory, "tiny-fastwam", "fp16", no_rewrites=without)
    check_rewrites(RTX, "sm_75", read_manifest(root).rewrites)
    compiles(compiler, root, ["sm_75"])


def test_graphs_that_copy_compile_with_open_rows(tiny_bundle_opset20, compiler):
    job = job_in(tiny_bundle_opset20, "action_step")
    assert job.shapes["memory.00.k"] == ((1, 2, 120, 12), (1, 2, 312, 12), (1, 2, 568, 12))
    assert job.shapes["key_bias"] == ((1, 1, 1, 136), (1, 1, 1, 328), (1, 1, 1, 584))
    compiles(compiler, tiny_bundle_opset20)
    entry = audit_of(network_of(compiler, job), job, "fp32").entry
    assert len(entry.memory_copies) == 6  # keys and values of three layers
    assert all(copy.endswith("(CONCATENATION)") for copy in entry.memory_copies)


@pytest.mark.parametrize("target", [*TARGETS, "sm_121"])
def test_every_target_alone(tmp_path_factory, compiler, target):
    job = job_in(compiled_bundle(tmp_path_factory, "tiny", "fp16"), "cache_update")
    assert len(network_of(compiler, job).build([target])) > job.weight_bytes


@pytest.mark.proof  # a quarter of an hour: exports of what the tests above leave out
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(
    ("preset", "num_layers"),
    [
        ("tiny", None),
        ("tiny-fastwam", None),
        ("demo", None),
        ("robotwin-384x320", 2),
        ("d455-256x352", 2),
        ("fastwam", 2),
    ],
)
def test_every_preset_compiles_in_every_precision(
    tmp_path_factory, compiler, preset, num_layers, precision
):
    """Those of the real width two layers deep: the last one's update attends to nothing."""
    compiles(compiler, compiled_bundle(tmp_path_factory, preset, precision, num_layers=num_layers))


def test_open_rows_cannot_be_written_in_place(tiny_bundle_in_place, compiler):
    """The reason why such a graph's engine takes the rows of one bucket."""
    entry = read_manifest(tiny_bundle_in_place).graphs["cache_update"]
    with pytest.raises(BundleError, match="must have a static sequence length"):
        compiler.network(tiny_bundle_in_place / entry.file, entry.inputs, entry.outputs)


def test_keys_in_memory_go_to_attention_as_they_are(tiny_bundle_in_place, compiler):
    """ONNX scales queries and keys by one factor each; both belong to the few queries."""
    network = network_of(compiler, job_in(tiny_bundle_in_place, "action_step"))
    layers = network.layers()
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    attentions = [layer for layer in layers if layer.kind == "ATTENTION_INPUT"]
    over_memory = [a for a in attentions if a.inputs[1].name.startswith("memory_out")]
    assert [a.inputs[1].name for a in over_memory] == [f"memory_out.{i:02d}.k" for i in range(3)]
    for attention in attentions:
        scaled = makers[attention.inputs[0].name]
        assert scaled.kind == "ELEMENTWISE"
        factor = makers[scaled.inputs[1].name]
        assert (factor.kind, makers[factor.inputs[0].name].kind) == ("CAST", "CONSTANT")
        # And not a second time.
        assert makers[scaled.inputs[0].name].kind != "ELEMENTWISE" or not scales(
            makers[scaled.inputs[0].name]
        )
    assert len(network._constants) == len(attentions)
    expected = 1 / math.sqrt(read_manifest(tiny_bundle_in_place).contract.head_dim)
    assert [float(value[0]) for value in network._constants] == pytest.approx(
        [expected] * len(attentions)
    )


def scales(layer):
    """Return whether a product is one by a single number."""
    return set(layer.inputs[1].shape) <= {1}


def attention_model(path, **attributes):
    """Write a graph with one attention over 64 keys."""
    value, fp16 = helper.make_tensor_value_info, onnx.TensorProto.FLOAT16
    graph = helper.make_graph(
        [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="a", **attributes)],
        "scaled",
        [
            value("q", fp16, (1, 2, 4, 16)),
            value("k", fp16, (1, 2, 64, 16)),
            value("v", fp16, (1, 2, 64, 16)),
        ],
        [value("y", fp16, (1, 2, 4, 16))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("stated", "expected"), [({"scale": 0.5}, 0.5), ({}, 0.25)], ids=str)
def test_a_scale_that_a_graph_states_is_kept(tmp_path, compiler, stated, expected):
    network = compiler.network(attention_model(tmp_path / "a.onnx", **stated), (), ())
    (attention,) = [layer for layer in network.layers() if layer.kind == "ATTENTION_INPUT"]
    assert [tensor.name for tensor in attention.inputs[1:]] == ["k", "v"]
    assert [float(constant[0]) for constant in network._constants] == [expected]
    assert network.build(["sm_89"])


def test_a_float32_softmax_is_understood_and_no_other(tmp_path, compiler):
    wide, narrow = (
        attention_model(tmp_path / f"{kind}.onnx", softmax_precision=kind)
        for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    )
    assert compiler.network(wide, (), ()).build(["sm_89"])
    with pytest.raises(BundleError, match="softmax precision is not supported"):
        compiler.network(narrow, (), ())


def test_attention_widened_to_float32_is_spelt_out(tmp_path, compiler):
    """As in cross-attention with a bias; the compiler trips over its own rewrite of it."""
    value, fp16, fp32 = helper.make_tensor_value_info, onnx.TensorProto.FLOAT16, 1
    shapes = {"q": (1, 2, 4, 16), "k": (1, 2, 64, 16), "v": (1, 2, 64, 16)}
    nodes = [helper.make_node("Cast", [name], [f"{name}32"], to=fp32) for name in shapes]
    nodes.append(helper.make_node("Attention", ["q32", "k32", "v32", "mask"], ["y32"], name="a"))
    nodes.append(helper.make_node("Cast", ["y32"], ["y"], to=fp16))
    graph = helper.make_graph(
        nodes,
        "widened",
        [
            *(value(name, fp16, shape) for name, shape in shapes.items()),
            value("mask", fp32, (1, 1, 4, 64)),
        ],
        [value("y", fp16, (1, 2, 4, 16))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)])
    onnx.save(model, tmp_path / "w.onnx")
    network = compiler.network(tmp_path / "w.onnx", (), ())
    layers = network.layers()
    makers = {tensor.name: layer for layer in layers for tensor in layer.outputs}
    kinds, layer = [], makers["y"]
    while layer.inputs[0].name in makers:
        kinds.append(layer.kind)
        layer = makers[layer.inputs[0].name]
    products = ["MATRIX_MULTIPLY", "SOFTMAX", "ELEMENTWISE", "MATRIX_MULTIPLY", "ELEMENTWISE"]
    assert kinds == ["CAST", *products]
    assert network.build(TARGETS)


@pytest.mark.parametrize("graph", ["cache_update", "action_step"])
def test_attention_over_memory_has_a_fused_kernel(tmp_path_factory, compiler, graph):
    """Without leave to decompose it, the build fails where no kernel fits."""
    job = job_in(compiled_bundle(tmp_path_factory, "tiny", "fp16"), graph)
    network = network_of(compiler, job)
    trt, layers = network._trt, network._network
    for index in range(layers.num_layers):
        layer = layers.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_INPUT:
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = False
    assert network.build(TARGETS)


def test_what_the_compiler_prints_does_not_reach_standard_output(tmp_path_factory, compiler, capfd):
    job = job_in(compiled_bundle(tmp_path_factory, "tiny-fastwam", "bf16"), "vae_first")
    with engine._captured_stdout() as printed:
        network_of(compiler, job).build(["sm_89"])
        assert printed() == ""  # kept from here too
    assert capfd.readouterr().out == ""


def test_a_graph_that_the_parser_does_not_know_is_refused_in_its_words(tmp_path, compiler):
    path = tmp_path / "odd.onnx"
    text = '<ir_version: 10, opset_import: ["" : 20]> g (float[2, 3] x) => (float[2, 3] y)'
    onnx.save(onnx.parser.parse_model(text + " { y = Nothing (x) }"), path)
    with pytest.raises(BundleError, match=r"odd.onnx: tensorrt_rtx .* cannot read .*Nothing '"):
        compiler.network(path, (), ())


def test_a_missing_backend_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingPartError, match="JetPack"):
        Compiler("tensorrt")


def test_the_version_is_that_of_the_package(compiler):
    assert compiler.version == importlib.metadata.version("tensorrt-rtx-cu13")


class OneGpu:
    """The driver of a machine with one Jetson Orin."""

    def __init__(self, path):
        assert path == "libcuda.so.1"

    def cuInit(self, flags):  # noqa: N802 - the driver's name
        return flags

    def cuDeviceGet(self, device, ordinal):  # noqa: N802 - the driver's name
        return ordinal

    def cuDeviceGetAttribute(self, number, attribute, device):  # noqa: N802 - the driver's name
        number._obj.value = {75: 8, 76: 7}[attribute]
        return 0


def test_the_device_here_is_found(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", OneGpu)
    assert device_target() == "sm_87"
    monkeypatch.setattr(OneGpu, "cuInit", lambda *_: 100)  # CUDA_ERROR_NO_DEVICE
    assert device_target() is None


def test_no_driver_is_no_device(monkeypatch):
    def absent(path):
        raise OSError(path)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert device_target() is None


@pytest.fixture
def proper(monkeypatch):
    """TensorRT proper, played by the compiler that is here: their interfaces are the same."""
    monkeypatch.setitem(sys.modules, "tensorrt", sys.modules["tensorrt_rtx"])
    monkeypatch.setattr(engine, "device_target", lambda: "sm_89")
    return Compiler("tensorrt")


def test_tensorrt_proper_builds_for_its_own_device_alone(compiler, proper):
    proper.check_device("sm_89")
    compiler.check_device("sm_120")
    with pytest.raises(InputError, match=r"found target sm_120, and sm_89 in this machine"):
        proper.check_device("sm_120")


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_tensorrt_proper_keeps_a_timing_cache(tiny_bundle_in_place, compiler, proper):
    job = job_in(tiny_bundle_in_place, "state_kv")
    cache = bytearray()
    assert network_of(compiler, job).build(["sm_89"], timing_cache=cache)
    assert cache == b""  # TensorRT-RTX measures on the device
    assert network_of(proper, job).build(["sm_89"], timing_cache=cache)
    assert len(cache) > 0


def test_without_its_device_an_engine_tells_nothing(tiny_bundle_in_place, compiler):
    assert compiler.information(memoryview(b"not an engine")) is None
