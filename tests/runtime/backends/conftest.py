"""Fake devices, and small engines on them."""

import sys

import pytest
from tests.fakes.cuda_driver import FakeCuda, installed
from tests.fakes.small_engine import ENTRY, PLAN
from tests.fakes.tensorrt import FakeTensorRt

from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.backends.device_arrays import DeviceArrays
from memorywam_runtime.backends.trt import TrtBackend


@pytest.fixture
def fake(monkeypatch) -> FakeCuda:
    return installed(monkeypatch)


@pytest.fixture
def arrays(fake) -> DeviceArrays:
    made = DeviceArrays(staging_bytes=4096)
    fake.calls.clear()
    return made


@pytest.fixture
def library(monkeypatch, fake) -> FakeTensorRt:
    made = FakeTensorRt(fake)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", made)
    return made


@pytest.fixture
def backend(library) -> TrtBackend:
    made = backend_from_name("tensorrt-rtx")
    assert isinstance(made, TrtBackend)
    return made


@pytest.fixture
def load(library, backend, tmp_path):
    def loaded(plan=PLAN, entry=ENTRY, name="graph"):
        return backend.load(library.file_of(tmp_path / f"{name}.engine", plan), entry)

    return loaded
