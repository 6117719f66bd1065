"""A whole session on the TensorRT backend, over a fake device: its actions are ONNX Runtime's."""

import sys
from typing import Any, cast

import numpy as np
import pytest
from tests.fakes.bundles import Rung, differences, rung
from tests.fakes.cuda_driver import FakeCuda, installed
from tests.fakes.driver import Driver
from tests.fakes.tensorrt import FakeTensorRt, plan_from_onnx

from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.bundle import check_bundle, read_prompt
from memorywam_runtime.warm_up import warm_up

BUCKETS = (4, 8, 16)
"""Of the tiny model, multiples of 4 start every layer at a multiple of 256 bytes."""
ROWS = (1, 64, 512)


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def flavour(request):
    return request.param


@pytest.fixture
def device(monkeypatch) -> FakeCuda:
    return installed(monkeypatch)


@pytest.fixture
def library(monkeypatch, device, flavour) -> FakeTensorRt:
    fake = FakeTensorRt(device, is_rtx=flavour == "tensorrt-rtx")
    monkeypatch.setitem(sys.modules, flavour.replace("-", "_"), fake)
    return fake


def on_fake(library, flavour, bundle, folder):
    """Return a rung whose engines compute with ONNX Runtime behind the fake driver."""
    manifest = check_bundle(bundle)
    backend: Any = backend_from_name(flavour)
    engines = {}
    for name, entry in manifest.graphs.items():
        if name == "prompt_kv":
            continue
        named = {d for s in entry.inputs for d in s.shape if isinstance(d, str)}
        plan = plan_from_onnx(bundle / entry.file, entry, **dict.fromkeys(named, ROWS))
        path = library.file_of(folder / f"{name}.engine", plan)
        engines[name] = backend.load(path, entry)
    return Rung(name=flavour, root=bundle, manifest=manifest, backend=backend, engines=engines)


@pytest.mark.parametrize("bundle", ["tiny_bundle", "tiny_bundle_opset20"])
def test_its_actions_and_its_memory_are_those_of_onnxruntime(
    bundle, request, device, library, flavour, tmp_path
):
    """Over two bucket changes, with replayed graphs, and again after a reset: bit for bit."""
    root = request.getfixturevalue(bundle)
    plain = rung("ort in place" if bundle == "tiny_bundle" else "ort copy", root)
    fake = on_fake(library, flavour, root, tmp_path)
    text = read_prompt(root, plain.manifest, "random")
    wanted, found = (Driver(one.session(*BUCKETS), text) for one in (plain, fake))
    for span in ((0, 10), (10, 12)):
        np.testing.assert_array_equal(found.frames(*span), wanted.frames(*span))
    assert found.session.buffers.bucket == 2
    assert differences(found.session.snapshot(), wanted.session.snapshot()) == []
    assert cast("Any", fake.backend).num_fallbacks == 0
    assert device.num_launches > 0
    wanted, found = (Driver(driver.session, text, seed=1) for driver in (wanted, found))
    np.testing.assert_array_equal(found.frames(6), wanted.frames(6))


def test_a_snapshot_moves_to_it_from_onnxruntime(device, library, flavour, tmp_path, tiny_bundle):
    plain, fake = rung("ort in place", tiny_bundle), None
    fake = on_fake(library, flavour, tiny_bundle, tmp_path)
    text = read_prompt(tiny_bundle, plain.manifest, "random")
    wanted, found = (Driver(one.session(*BUCKETS), text) for one in (plain, fake))
    wanted.frames(6)
    found.session.restore(wanted.session.snapshot())
    np.testing.assert_array_equal(found.frames(6, 9), wanted.frames(6, 9))


def test_a_steady_tick_replays_graphs_and_allocates_nothing(
    device, library, flavour, tmp_path, tiny_bundle
):
    fake = on_fake(library, flavour, tiny_bundle, tmp_path)
    text = read_prompt(tiny_bundle, fake.manifest, "random")
    driver = Driver(fake.session(16), text)
    driver.frames(6)
    runs = [context.num_enqueued for context in library.contexts]
    device.calls.clear()
    driver.frames(6, 12)
    forbidden = {"cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaStreamBeginCapture"}
    assert not forbidden & set(device.names())
    # One for each image that is encoded early, one for the rest and the update, one for the chunk;
    # the joint state is one plain run.
    num_launches = len(driver.session.calls.early) + 2
    assert device.names().count("cudaGraphLaunch") == num_launches * 6
    assert len(library.contexts) == len(runs)
    assert sum(c.num_enqueued for c in library.contexts) - sum(runs) == 6


def test_what_was_compiled_in_the_warm_up_is_kept(device, library, flavour, tmp_path, tiny_bundle):
    """And nothing of a tick is: no file is written there."""
    fake = on_fake(library, flavour, tiny_bundle, tmp_path)
    session = fake.session(*BUCKETS)
    assert not list(tmp_path.glob("*.cache"))
    warm_up(session)
    kept = {path.name.split(".")[0] for path in tmp_path.glob("*.cache")}
    assert kept == (set(fake.engines) if flavour == "tensorrt-rtx" else set())
    for path in tmp_path.glob("*.cache"):
        path.unlink()
    Driver(session, read_prompt(tiny_bundle, fake.manifest, "random")).frames(6)
    assert not list(tmp_path.glob("*.cache"))


def test_contexts_share_one_scratch(device, library, flavour, tmp_path, tiny_bundle):
    fake = on_fake(library, flavour, tiny_bundle, tmp_path)
    fake.session(*BUCKETS)
    assert len({context.scratch for context in library.contexts}) == 1
