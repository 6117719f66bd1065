"""The fake CUDA runtime against the real package: names, arguments, and what calls take."""

import functools
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]
from tests.fakes.cuda_driver import FakeCuda, installed

from memorywam_runtime.backends.device_arrays import DeviceArrays
from memorywam_runtime.errors import DeviceError, MissingPartError
from memorywam_runtime.tensors import TensorSpec

FUNCTIONS = sorted(name for name in vars(FakeCuda) if name.startswith("cuda"))

# Replays one call of each function on the real runtime, which has no GPU here: it must refuse
# with an error of its own, and not because of the arguments.
REPLAY = """
import json, sys
from cuda.bindings import runtime
wrong = {}
for name, args in json.loads(sys.stdin.read()):
    made = []
    for kind, value in args:
        made.append(value if kind == "int" else getattr(runtime, kind)(value))
    try:
        found = getattr(runtime, name)(*made)
        assert isinstance(found, tuple) and isinstance(found[0], runtime.cudaError_t), found
    except Exception as error:
        wrong[name] = f"{type(error).__name__}: {error}"
print(json.dumps(wrong))
"""
# The real ones would follow the made-up handle, driver or no driver.
FOLLOWS_HANDLES = {"cudaGraphDestroy", "cudaGraphExecDestroy", "cudaGraphInstantiate"}


def test_every_function_of_the_fake_is_real_and_takes_the_same_arguments():
    assert len(FUNCTIONS) > 20
    for name in FUNCTIONS:
        ours = list(inspect.signature(inspect.unwrap(getattr(FakeCuda, name))).parameters)[1:]
        assert ours == list(inspect.signature(getattr(real, name)).parameters), name


def test_what_we_pass_is_what_the_real_functions_take(monkeypatch):
    fake = installed(monkeypatch)
    arrays = DeviceArrays(staging_bytes=4096)
    spec = TensorSpec(name="t", shape=(2, 2, 4, 3), dtype="float32", meaning="a test")
    more = TensorSpec(name="t", shape=(2, 2, 5, 3), dtype="float32", meaning="a test")
    flat = arrays.flat(100, more)
    one = arrays.view(flat, spec)
    sequence = arrays.sequence([functools.partial(arrays.copy_rows, one, 0, one, 2, 1)])
    for _ in range(20):
        arrays.write(one, np.zeros(one.shape, np.float32))
    for _ in range(3):
        sequence()
    arrays.read(one)
    arrays.regrow(flat, spec, more)
    fake.errors["cudaMemsetAsync"] = real.cudaError_t.cudaErrorUnknown
    with pytest.raises(DeviceError):
        arrays.zero(one)
    del arrays, flat, one, sequence
    monkeypatch.setattr(fake, "num_devices", 0)
    with pytest.raises(MissingPartError):
        DeviceArrays()
    calls = dict(fake.calls)
    assert set(calls) == set(FUNCTIONS)
    plain = [
        (name, [_plain(value) for value in args])
        for name, args in calls.items()
        if name not in FOLLOWS_HANDLES
    ]
    told = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=json.dumps(plain),
        capture_output=True,
        text=True,
        check=True,
        env={"CUDA_VISIBLE_DEVICES": ""},
    )
    assert json.loads(told.stdout) == {}


def _plain(value):
    """Return a type of the real package, or int, and a number."""
    return "int" if type(value) is int else type(value).__name__, int(value)
