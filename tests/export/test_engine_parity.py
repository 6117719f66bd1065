"""Engines on a device, climbed as one more rung: a passing report lets them load, and no other."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import TINY
from tests.fakes.cuda_driver import installed
from tests.fakes.engines import fake_engines
from tests.fakes.tensorrt import FakeTensorRt, plan_from_onnx

from memorywam_runtime.bundle import open_bundle, read_manifest
from memorywam_runtime.cli import main
from memorywam_runtime.engines import RowsProfile, engines_dir, read_engines, write_engines
from memorywam_runtime.errors import BundleError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.memory import Rows


@pytest.fixture
def library(monkeypatch) -> FakeTensorRt:
    fake = FakeTensorRt(installed(monkeypatch), is_rtx=True)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    return fake


@pytest.fixture
def engines(library, tiny_bundle, tmp_path):
    """Return a directory of engines that compute with ONNX Runtime behind the fake driver."""
    return engines_of(library, tiny_bundle, tmp_path / "engines")


def engines_of(library: Any, bundle: Path, folder: Path) -> Path:
    manifest = read_manifest(bundle)
    fake_engines(folder, manifest, target="sm_89", backend_version=library.__version__)
    rows = Rows(manifest.contract).total(manifest.memory.gist_buckets[-1])
    profile = RowsProfile(rows_min=rows, rows_opt=rows, rows_max=rows)
    found = read_engines(folder)
    entries = {}
    for graph, entry in manifest.graphs.items():
        named = {d for s in entry.inputs for d in s.shape if isinstance(d, str)}
        plan = plan_from_onnx(
            bundle / entry.file, entry, **dict.fromkeys(named, (rows, rows, rows))
        )
        path = library.file_of(folder / found.engines[graph].file, plan)
        size = path.stat().st_size
        entries[graph] = msgspec.structs.replace(
            found.engines[graph],
            num_bytes=size,
            sha256=sha256_of(path),
            profiles=(profile,) if named else (),
        )
    write_engines(folder, msgspec.structs.replace(found, engines=entries))
    return folder


def verify(bundle, engines, *words):
    known = ("--checkpoint", TINY, "--frames", "4", "--backend", "tensorrt-rtx")
    return main(["verify", str(bundle), *known, "--engine", str(engines), *words])


def opened(bundle, engines):
    return open_bundle(bundle, backend="tensorrt-rtx", engines=engines)


def test_engines_load_once_a_report_vouches_for_them(tiny_bundle, engines, tmp_path):
    with pytest.raises(BundleError, match="found no parity report"):
        opened(tiny_bundle, engines)
    assert verify(tiny_bundle, engines, "--json", str(tmp_path / "told.json")) == 0
    told = json.loads((tmp_path / "told.json").read_bytes())["data"]
    assert [rung["rung"] for rung in told["rungs"]][-1] == "tensorrt-rtx"
    assert read_engines(engines).parity is not None
    session = opened(tiny_bundle, engines)
    assert session.buffers.capacity == session.manifest.memory.max_frames


def test_a_wrong_engine_is_caught_and_refused(tiny_bundle, engines, library, capsys):
    path = engines / read_engines(engines).engines["cache_update"].file
    plan = library.plans[str(path)]
    right = plan.compute

    def wrong(arrays):
        right(arrays)
        arrays["memory_out.01.k"] += np.float32(0.01)

    plan.compute = wrong
    assert verify(tiny_bundle, engines) == 1
    assert "memory_out.01.k" in capsys.readouterr().out
    with pytest.raises(BundleError, match="says that a check failed"):
        opened(tiny_bundle, engines)


def test_engines_stand_beside_the_bundle_by_default(library, tiny_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    bundle.symlink_to(tiny_bundle)
    folder = engines_dir(bundle, "tensorrt-rtx", "sm_89")
    engines_of(library, bundle, folder)
    words = ["verify", str(bundle), "--checkpoint", TINY, "--frames", "2"]
    assert main([*words, "--backend", "tensorrt-rtx"]) == 0
    assert open_bundle(bundle, backend="tensorrt-rtx").backend.name == "tensorrt-rtx"


def test_engines_are_for_backends_that_run_them(tiny_bundle, tmp_path, capsys):
    words = ["verify", str(tiny_bundle), "--checkpoint", TINY, "--engine", str(tmp_path)]
    assert main(words) == 2
    assert "expected tensorrt or tensorrt-rtx" in capsys.readouterr().err
