"""ONNX Runtime on the CPU and on the GPU: which provider is asked for, and which is refused."""

import importlib.metadata
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tests.fakes.cuda_driver import FakeCuda, installed

from memorywam_runtime.backends import backend_from_name, ort
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import BundleError, MissingPartError

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture
def two_distributions(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        return "1.31.1" if name in ("onnxruntime", "onnxruntime-gpu") else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("name", "keep", "drop"),
    [("ort", "onnxruntime", "onnxruntime-gpu"), ("ort-cuda", "onnxruntime-gpu", "onnxruntime")],
)
def test_two_distributions_over_each_other_are_refused(two_distributions, name, keep, drop):
    with pytest.raises(MissingPartError) as told:
        backend_from_name(name)
    assert f"expected {keep} without {drop}" in str(told.value)
    both = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install"
    assert str(told.value).endswith(f"{both} {keep}")


def test_an_installation_without_cuda_says_so(monkeypatch):
    """For real where the CPU's distribution is installed, as in this project's environment."""
    if HAS_CUDA:
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
        )
    with pytest.raises(MissingPartError, match=r"with .*CPUExec.*; expected CUDAExecutionProvider"):
        backend_from_name("ort-cuda")


@pytest.fixture
def entry(tiny_bundle):
    return read_manifest(tiny_bundle).graphs["state_kv"]


def test_a_silent_fallback_is_refused(monkeypatch, tiny_bundle, entry):
    """CUDA's libraries do not load: onnxruntime logs it and goes on with the CPU."""
    found = onnxruntime.InferenceSession(
        str(tiny_bundle / entry.file), providers=["CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: found)
    with pytest.raises(
        MissingPartError, match=r"with CPUExec.*; expected CUDAExec.* first: the lib"
    ):
        ort.load_session(
            tiny_bundle / entry.file, entry, ort.session_options(), "CUDAExecutionProvider"
        )


def test_the_cpu_backend_still_refuses_a_file_that_is_no_graph(tmp_path, entry):
    (tmp_path / "state_kv.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"cannot load state_kv\.onnx"):
        backend_from_name("ort").load(tmp_path / "state_kv.onnx", entry)


class RecordedSession:
    """What onnxruntime-gpu would be told; it computes nothing."""

    def __init__(self, path, options, providers):
        self.providers = providers
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.bound = []
        self.runs = []

    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_inputs(self):
        return self.session.get_inputs()

    def get_outputs(self):
        return self.session.get_outputs()

    def io_binding(self):
        return self

    def bind_input(self, *args):
        self.bound.append(args)

    def bind_output(self, *args):
        self.bound.append(args)

    def run_with_iobinding(self, binding, run_options):
        self.runs.append(run_options)


@pytest.fixture
def sessions(monkeypatch, tiny_bundle):
    """Record the sessions that are made on a fake device."""
    made = []
    real = onnxruntime.InferenceSession

    class Made(RecordedSession):
        def __init__(self, path, options, providers):
            monkeypatch.setattr(onnxruntime, "InferenceSession", real)
            super().__init__(path, options, providers)
            made.append(self)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Made)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    return made


@pytest.fixture
def device(monkeypatch) -> FakeCuda:
    return installed(monkeypatch, num_devices=2)


def test_cuda_runs_on_our_stream_on_our_addresses_and_does_not_wait(
    device, sessions, tiny_bundle, entry
):
    backend: Any = backend_from_name("ort-cuda", device=1)
    engine = backend.load(tiny_bundle / entry.file, entry)
    (session,) = sessions
    stream = backend.device.handle
    assert session.providers == [
        ("CUDAExecutionProvider", {"device_id": "1", "user_compute_stream": str(stream)})
    ]
    inputs, outputs = (
        {s.name: backend.view(backend.flat(s.num_bytes // 4, s), s) for s in specs}
        for specs in (entry.inputs, entry.outputs)
    )
    run = engine.bind(inputs, outputs)
    wanted = [
        (name, "cuda", 1, np.float32, array.shape, array.address)
        for name, array in (*inputs.items(), *outputs.items())
    ]
    assert session.bound == wanted
    device.calls.clear()
    run()
    assert device.calls == []
    (options,) = session.runs
    assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"


def test_cuda_sequences_run_call_by_call_and_are_counted(device, sessions):
    backend: Any = backend_from_name("ort-cuda")
    turns = []
    sequence = backend.sequence([lambda: turns.append(1)])
    for _ in range(3):
        sequence()
    assert len(turns) == 3
    assert backend.num_fallbacks == 1
    assert "cudaStreamBeginCapture" not in device.names()
    assert backend.is_async
