"""Tensors on the GPU: what they ask of CUDA, and what they say when it refuses."""

import functools
import gc
import subprocess
import sys

import numpy as np
import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]
from tests.fakes.cuda_driver import installed

from memorywam_runtime.backends.device_arrays import DeviceArrays
from memorywam_runtime.errors import DeviceError, InputError, MissingPartError
from memorywam_runtime.tensors import TensorSpec

ERRORS = real.cudaError_t
WAITS = {"cudaStreamSynchronize", "cudaEventSynchronize"}
ALLOCATES = {"cudaMalloc", "cudaHostAlloc", "cudaEventCreateWithFlags", "cudaFree", "cudaFreeHost"}


def spec(*shape):
    return TensorSpec(name="t", shape=shape, dtype="float32", meaning="a test")


def made(arrays, *shape):
    return arrays.view(arrays.flat(int(np.prod(shape)), spec(*shape)), spec(*shape))


def full(value, *shape):
    return np.full(shape, value, np.float32)


def in_a_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", **environment},
    )


# What is missing.


@pytest.mark.parametrize("backend", ["tensorrt-rtx", "ort-cuda"])
def test_without_a_gpu_it_says_what_was_found_and_what_to_do(backend):
    """For real: the driver of this machine, if any, is told to hide its GPUs."""
    code = f"""
from memorywam_runtime.backends import backend_from_name, ort
from memorywam_runtime.errors import MissingPartError
ort.check_provider = lambda name: None
import memorywam_runtime.backends.ort_cuda as ort_cuda
ort_cuda.check_provider = lambda name: None
try:
    backend_from_name("{backend}")
except MissingPartError as error:
    print(error)
"""
    told = in_a_process(code, CUDA_VISIBLE_DEVICES="")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("found no GPU to use on this machine")
    for part in ("cudaError", "expected an NVIDIA GPU", "nvidia-smi", "the backend 'ort'"):
        assert part in told.stdout


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "ort-cuda"])
def test_without_cuda_python_it_says_what_to_install(name):
    code = f"""
import sys
sys.modules["cuda"] = None
from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.errors import MissingPartError
try:
    backend_from_name("{name}")
except MissingPartError as error:
    print(error)
"""
    told = in_a_process(code)
    assert told.stdout.startswith(f"backend '{name}' cannot be loaded: ")
    assert "pip install 'memorywam[" in told.stdout


def test_a_gpu_number_that_is_not_there(monkeypatch):
    installed(monkeypatch, num_devices=2)
    with pytest.raises(MissingPartError, match="found no GPU 2; expected 0 to 1"):
        DeviceArrays(2)
    with pytest.raises(MissingPartError, match="found no GPU -1; expected 0 to 1"):
        DeviceArrays(-1)


def test_a_driver_that_counts_none(monkeypatch):
    installed(monkeypatch, num_devices=0)
    with pytest.raises(MissingPartError, match=r"driver is for CUDA 13\.0 \(CUDA counts 0 devices"):
        DeviceArrays()


def test_an_old_driver(fake):
    fake.errors["cudaGetDeviceCount"] = ERRORS.cudaErrorInsufficientDriver
    with pytest.raises(MissingPartError, match=r"InsufficientDriver.*driver for CUDA 13\.5"):
        DeviceArrays()


def test_the_architecture(monkeypatch):
    installed(monkeypatch, capability=(12, 1))
    assert DeviceArrays().target == "sm_121"


def test_too_little_staging_memory_is_refused(fake):
    with pytest.raises(InputError, match="found staging_bytes 100; expected at least 4096"):
        DeviceArrays(staging_bytes=100)


def test_a_full_device_says_so_and_goes_on(fake, arrays):
    fake.errors["cudaMalloc"] = ERRORS.cudaErrorMemoryAllocation
    with pytest.raises(DeviceError, match=r"cudaErrorMemoryAllocation.*fewer --max-frames"):
        made(arrays, 10)
    assert "cudaGetLastError" in fake.names()  # else a later call would be told of it
    one = made(arrays, 10)
    np.testing.assert_array_equal(arrays.read(one), np.zeros(10))


def test_a_failure_on_the_device_is_told_by_whoever_waits(fake, arrays):
    one = made(arrays, 10)
    fake.errors["cudaStreamSynchronize"] = ERRORS.cudaErrorIllegalAddress
    with pytest.raises(DeviceError, match=r"cudaErrorIllegalAddress.*start the process again"):
        arrays.read(one)


# Writes and reads.


def test_a_write_neither_waits_nor_allocates(fake, arrays):
    one = made(arrays, 8)
    fake.calls.clear()
    for value in range(3):
        arrays.write(one, full(value, 8))
    assert fake.names() == ["cudaMemcpyAsync", "cudaEventRecord"] * 3


def test_a_full_ring_waits_for_the_oldest_copy_alone(fake, arrays):
    """16 pieces of 256 bytes are under way when the ring is full."""
    targets = [made(arrays, 8) for _ in range(20)]
    arrays.finish()
    fake.calls.clear()
    for value, one in enumerate(targets[:16]):
        arrays.write(one, full(value, 8))
    assert not WAITS & set(fake.names())
    assert fake.num_pending == 16
    arrays.write(targets[16], full(16, 8))
    assert fake.names().count("cudaEventSynchronize") == 1
    assert fake.num_pending == 16
    for value, one in enumerate(targets[17:], 17):
        arrays.write(one, full(value, 8))
    for value, one in enumerate(targets):
        np.testing.assert_array_equal(arrays.read(one), full(value, 8))


def test_more_writes_than_events(fake):
    arrays = DeviceArrays()
    targets = [made(arrays, 2) for _ in range(600)]
    arrays.finish()
    for value, one in enumerate(targets):
        arrays.write(one, full(value, 2))
    assert fake.num_pending == 256
    for value, one in enumerate(targets):
        np.testing.assert_array_equal(arrays.read(one), full(value, 2))


def test_pieces_of_many_sizes_never_meet_in_the_ring(arrays):
    rng = np.random.default_rng(0)
    targets = [(made(arrays, int(size)), size) for size in rng.integers(1, 700, 60)]
    for _ in range(5):
        for value, (one, size) in enumerate(targets):
            arrays.write(one, full(value, size))
    for value, (one, size) in enumerate(targets):
        np.testing.assert_array_equal(arrays.read(one), full(value, size))


def test_after_waiting_the_ring_is_free(fake, arrays):
    one = made(arrays, 200)
    for _ in range(50):
        arrays.write(one, full(1, 200))
        arrays.finish()
    assert "cudaEventSynchronize" not in fake.names()


def test_a_large_read_comes_in_pieces(monkeypatch, fake):
    monkeypatch.setattr("memorywam_runtime.backends.device_arrays._LANDING_BYTES", 100)
    arrays = DeviceArrays()
    one = made(arrays, 11, 7)
    values = np.arange(77, dtype=np.float32).reshape(11, 7)
    arrays.write(one, values)
    fake.calls.clear()
    np.testing.assert_array_equal(arrays.read(one), values)
    assert fake.names() == ["cudaMemcpyAsync", "cudaStreamSynchronize"] * 4


def test_a_view_of_another_type_is_refused(arrays):
    flat = arrays.flat(10, spec(10))
    other = TensorSpec(name="t", shape=(10,), dtype="float16", meaning="a test")
    with pytest.raises(InputError, match="found a buffer of 10 x float32; expected float16"):
        arrays.view(flat, other)
    with pytest.raises(InputError, match="elements -1 to 9"):
        arrays.view(flat, spec(10), -1)


def test_memory_goes_with_its_last_view(fake, arrays):
    flat = arrays.flat(100, spec(100))
    view = arrays.view(flat, spec(4), 8)
    address = flat.address
    del flat
    gc.collect()
    assert address in fake.memory
    del view
    gc.collect()
    assert address not in fake.memory


def test_a_backend_leaves_nothing_behind(fake):
    arrays = DeviceArrays()
    one = made(arrays, 2, 2, 10, 4)
    shift = arrays.sequence([functools.partial(arrays.copy_rows, one, 0, one, 5, 2)])
    for _ in range(3):
        shift()
    assert fake.graphs
    del arrays, one, shift
    gc.collect()
    assert (fake.memory, fake.pinned, fake.graphs) == ({}, {}, {})
    assert fake.names().count("cudaEventDestroy") == fake.names().count("cudaEventCreateWithFlags")
    assert fake.names().count("cudaStreamDestroy") == 1


# Rows.


def test_rows_of_all_heads_are_one_strided_copy(fake, arrays):
    target, source = made(arrays, 3, 2, 9, 4), made(arrays, 3, 2, 5, 4)
    fake.calls.clear()
    arrays.copy_rows(target, 6, source, 1, 3)
    ((name, args),) = fake.calls
    assert name == "cudaMemcpy2DAsync"
    assert args[:6] == (target.address + 6 * 16, 9 * 16, source.address + 16, 5 * 16, 3 * 16, 6)


@pytest.mark.parametrize(
    ("target_row", "source_row", "num_rows", "message"),
    [
        (0, 1, 2, "2 rows to copy from 1 to 0 of the same array; expected rows that do not over"),
        (3, 3, 1, "do not overlap"),
        (8, 0, 2, "found rows 8 to 10; expected them within 9"),
        (0, 8, 2, "found rows 8 to 10; expected them within 9"),
        (-1, 3, 1, "found rows -1 to 0"),
    ],
)
def test_rows_that_cannot_be_copied(fake, arrays, target_row, source_row, num_rows, message):
    one = made(arrays, 1, 2, 9, 4)
    fake.calls.clear()
    with pytest.raises(InputError, match=message):
        arrays.copy_rows(one, target_row, one, source_row, num_rows)
    assert fake.calls == []


def test_rows_of_arrays_that_do_not_fit(arrays):
    with pytest.raises(InputError, match="expected the same but for axis 2"):
        arrays.copy_rows(made(arrays, 1, 2, 9, 4), 0, made(arrays, 1, 2, 9, 5), 0, 1)


def test_growing_allocates_nothing_and_does_not_wait(fake, arrays):
    old, new = spec(2, 3, 5, 4), spec(2, 3, 7, 4)
    flat = arrays.flat(2 * 3 * 7 * 4, new)
    fake.calls.clear()
    arrays.regrow(flat, old, new)
    assert not (ALLOCATES | WAITS) & set(fake.names())


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 4, 9, 4), (2, 3, 9, 5)])
def test_memory_only_grows_by_rows(arrays, shape):
    flat = arrays.flat(1000, spec(1000))
    with pytest.raises(InputError, match="expected more rows"):
        arrays.regrow(flat, spec(2, 3, 5, 4), spec(*shape))
