"""Engines on a device, climbed as one more rung: a passing report lets them load, and no other."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.bundles import TINY, copy_of
from tests.fakes.cuda_driver import installed
from tests.fakes.ort_engines import engines_of
from tests.fakes.rungs import ORT_RUNGS
from tests.fakes.tensorrt import FakeTensorRt

from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.engines import engines_dir, gist_buckets_of, read_engines
from memorywam_runtime.errors import BundleError

RTX = "tensorrt-rtx"


@pytest.fixture
def library(monkeypatch) -> FakeTensorRt:
    fake = FakeTensorRt(installed(monkeypatch), is_rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


@pytest.fixture(params=ORT_RUNGS)
def bundle(request, tmp_path) -> Path:
    """A bundle that ONNX Runtime runs, because it is what these engines compute with.

    A copy, because the verb writes its report into it.
    """
    name = "tiny_bundle_opset20" if request.param == "ort copy" else "tiny_bundle"
    return copy_of(request.getfixturevalue(name), tmp_path)


@pytest.fixture
def engines(library, bundle, tmp_path):
    """Return a directory of engines that compute with ONNX Runtime behind the fake driver."""
    return engines_of(library, bundle, tmp_path / "engines")


def verify(bundle, engines, *words):
    known = ("--checkpoint", TINY, "--frames", "4", "--backend", RTX)
    return main(["verify", str(bundle), *known, "--engine", str(engines), *words])


def opened(bundle, engines):
    return open_bundle(bundle, backend=RTX, engines=engines)


def test_engines_load_once_a_report_vouches_for_them(bundle, engines, tmp_path):
    with pytest.raises(BundleError, match="found no parity report"):
        opened(bundle, engines)
    assert verify(bundle, engines, "--json", str(tmp_path / "told.json")) == 0
    told = json.loads((tmp_path / "told.json").read_bytes())["data"]
    assert [rung["rung"] for rung in told["rungs"]][-1] == RTX
    assert read_engines(engines).parity is not None
    manifest = read_manifest(bundle)
    buckets = manifest.memory.gist_buckets
    if manifest.cache_write == "in_place":  # such engines take the rows of one bucket
        buckets = buckets[-1:]
    assert gist_buckets_of(read_engines(engines), manifest) == buckets
    assert opened(bundle, engines).buffers.capacity == buckets[0]


def test_a_wrong_engine_is_caught_and_refused(bundle, engines, library, capsys):
    in_place = read_manifest(bundle).cache_write == "in_place"
    keys = "memory_out.01.k" if in_place else "new.01.k"
    path = engines / read_engines(engines).engines["cache_update"].file
    plan = library.plans[str(path)]
    right = plan.compute

    def wrong(arrays):
        right(arrays)
        arrays[keys] += np.float32(0.01)

    plan.compute = wrong
    assert verify(bundle, engines) == 1
    assert keys in capsys.readouterr().out
    with pytest.raises(BundleError, match="says that a check failed"):
        opened(bundle, engines)


def test_engines_stand_beside_the_bundle_by_default(library, bundle, tmp_path):
    linked = tmp_path / "bundle"
    linked.symlink_to(bundle)
    engines_of(library, linked, engines_dir(linked, RTX, "sm_89"))
    words = ["verify", str(linked), "--checkpoint", TINY, "--frames", "2"]
    assert main([*words, "--backend", RTX]) == 0
    assert open_bundle(linked, backend=RTX).backend.name == RTX


def test_engines_are_for_backends_that_run_them(tiny_bundle, tmp_path, capsys):
    words = ["verify", str(tiny_bundle), "--checkpoint", TINY, "--engine", str(tmp_path)]
    assert main(words) == 2
    assert "expected tensorrt or tensorrt-rtx" in capsys.readouterr().err
