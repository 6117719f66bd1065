"""TensorRT engines: which bindings and runs are refused, with which words."""

from dataclasses import replace

import numpy as np
import pytest
from tests.fakes.small_engine import INPUTS, OUTPUTS, PLAN, array, sides, spec
from tests.fakes.tensorrt import ICudaEngine

from memorywam_runtime.errors import DeviceError, InputError

# Refusals of a binding.


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("x", spec("x", 1, 5), r"tensor 'x' .*found float32 \[1, 5\]; expected float32 \[1, 4\]"),
        ("slot", spec("slot", 1), r"found float32 \[1\]; expected int64 \[1\]"),
    ],
)
def test_an_array_of_another_shape_or_type(backend, load, name, changed, message):
    inputs, outputs = sides(backend)
    with pytest.raises(InputError, match=message):
        load().bind({**inputs, name: array(backend, changed)}, outputs)


def test_rows_that_no_profile_takes(backend, load):
    message = (
        r"graph 'graph': found shapes .*\(1, 2, 100, 4\).*; expected .*'memory' \[1, 2, 1, 4\] to"
    )
    with pytest.raises(InputError, match=message):
        load().bind(*sides(backend, 100))


@pytest.mark.parametrize("first", [1, 63, 65])
def test_an_address_that_is_not_aligned(backend, load, first):
    inputs, outputs = sides(backend)
    inputs["x"] = array(backend, INPUTS[0], first)
    with pytest.raises(InputError, match=r"tensor 'x' starts at .*expects a multiple of 256 bytes"):
        load().bind(inputs, outputs)


def test_a_view_that_starts_at_256_bytes(backend, load):
    inputs, outputs = sides(backend)
    inputs["x"] = array(backend, INPUTS[0], 64)
    load().bind(inputs, outputs)()
    backend.finish()


def test_memory_that_the_engine_writes_in_place_must_be_shared(backend, load):
    inputs, outputs = sides(backend)
    outputs["memory_out"] = array(backend, OUTPUTS[1], rows=8)
    with pytest.raises(
        InputError, match=r"'memory_out' was given the memory of no input; .*memory"
    ):
        load().bind(inputs, outputs)


def test_memory_that_the_engine_does_not_write_in_place_must_not_be_shared(backend, load):
    with pytest.raises(InputError, match=r"the memory of memory; .*no input.*--opset 20"):
        load(replace(PLAN, aliases={})).bind(*sides(backend))


def test_a_tensorrt_too_old_to_write_in_place(monkeypatch, backend, load):
    """TensorRT 10.3, of JetPack 6, cannot be asked."""
    engine = load(replace(PLAN, aliases={}))
    monkeypatch.delattr(ICudaEngine, "get_aliased_input_tensor")
    inputs, outputs = sides(backend)
    with pytest.raises(InputError, match="--opset 20"):
        engine.bind(inputs, outputs)
    outputs["memory_out"] = array(backend, OUTPUTS[1], rows=8)
    engine.bind(inputs, outputs)()
    backend.finish()


def test_an_engine_that_gives_another_shape(monkeypatch, backend, load, library):
    engine = load()
    monkeypatch.setattr("tests.fakes.tensorrt.IExecutionContext.get_tensor_shape", lambda *_: (9,))
    with pytest.raises(InputError, match=r"gives 'total' as \[9\]; expected \[1, 4\]"):
        engine.bind(*sides(backend))


@pytest.mark.parametrize(
    ("method", "found", "message"),
    [
        ("set_input_shape", False, r"TensorRT refused shape \[1, 4\] of input 'x'"),
        ("set_tensor_address", False, "TensorRT refused the address of 'x'"),
        ("infer_shapes", ["x"], r"TensorRT refused shapes, for lack of \['x'\]"),
        ("set_optimization_profile_async", False, "TensorRT refused profile 2"),
    ],
)
def test_what_tensorrt_refuses_to_bind(monkeypatch, backend, load, method, found, message):
    engine = load()
    name = f"tests.fakes.tensorrt.IExecutionContext.{method}"
    monkeypatch.setattr(name, lambda *_: found)
    with pytest.raises(DeviceError, match=message):
        engine.bind(*sides(backend, 80))


def test_a_context_that_cannot_be_made(monkeypatch, backend, load):
    engine = load()
    monkeypatch.setattr(ICudaEngine, "create_execution_context", lambda *_: None)
    with pytest.raises(DeviceError, match="TensorRT refused to make a context"):
        engine.bind(*sides(backend))


def test_a_complaint_without_a_return_value_counts(monkeypatch, backend, load):
    """`set_device_memory` returns nothing: it only logs."""
    engine = load()
    monkeypatch.setattr(ICudaEngine, "device_memory_size_v2", property(lambda _: 1 << 20))
    with pytest.raises(DeviceError, match=r"refused a binding .the device memory is too small"):
        engine.bind(*sides(backend))


# Refusals of a run.


def test_an_enqueue_that_fails(backend, load, library):
    run = load().bind(*sides(backend))
    library.contexts[0].refuses = True
    with pytest.raises(
        DeviceError, match=r"'graph': TensorRT refused to enqueue \(an internal err"
    ):
        run()


def test_an_enqueue_that_fails_in_a_capture_alone(monkeypatch, fake, backend, load, library):
    inputs, outputs = sides(backend)
    update = backend.sequence([load().bind(inputs, outputs)])
    backend.write(inputs["x"], np.ones((1, 4), np.float32))
    context = library.contexts[0]
    monkeypatch.setattr(
        type(context), "refuses", property(lambda _: fake.is_capturing, lambda *_: None),
        raising=False,
    )  # fmt: skip
    for turn in range(1, 5):
        update()
        np.testing.assert_array_equal(backend.read(inputs["memory"]), np.full((1, 2, 8, 4), turn))
    assert backend.num_fallbacks == 1
    assert "refused to enqueue" in backend.fallback_reason
    assert not fake.is_capturing


def test_an_engine_that_says_it_cannot_be_captured(fake, backend, load):
    run = load(replace(PLAN, is_capturable=False)).bind(*sides(backend))
    sequence = backend.sequence([run])
    for _ in range(3):
        sequence()
    assert backend.num_fallbacks == 1
    assert backend.fallback_reason == "graph 'graph': TensorRT says that it cannot be captured"
    assert "cudaStreamBeginCapture" not in fake.names()
