"""Versions in the header, and what many tests share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memorywam_export.graphs.opsets import IN_PLACE_OPSET
from memorywam_runtime.versions import versions
from tests.fakes.rungs import NEWEST_OPSET, RUNGS

if TYPE_CHECKING:
    from tests.fakes.bundles import Rung


# Torch's threads spin while they wait: on models this small, and with another process on the same
# two cores, two threads took 1.0 s of processor time for a frame that one computes in 0.03 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_report_header() -> list[str]:
    """Most of 'it works here' is explained by these."""
    shown = ("python", "torch", "onnxruntime", "onnx", "mujoco", "numpy")
    found = versions()
    return [
        "versions: " + ", ".join(f"{name} {found.get(name, 'absent')}" for name in shown),
        f"rungs: {', '.join(RUNGS)}",
    ]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`random:tiny:0`, written in place where ONNX Runtime can. Read only: copy to damage it."""
    yield from _bundle(tmp_path_factory, NEWEST_OPSET)


@pytest.fixture(scope="session")
def tiny_bundle_in_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same, written in place whatever ONNX Runtime can: for compilers and for torch.

    Where ONNX Runtime can, it is `tiny_bundle`. Read only.
    """
    yield from _bundle(tmp_path_factory, IN_PLACE_OPSET)


@pytest.fixture(scope="session")
def tiny_bundle_opset20(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same checkpoint, whose graphs give new rows out. Read only."""
    yield from _bundle(tmp_path_factory, 20)


def _bundle(factory: pytest.TempPathFactory, opset: int) -> Iterator[Path]:
    # Imported here: it loads torch, and most tests need none.
    from memorywam_runtime.bundle import check_bundle
    from tests.fakes.bundles import bundle_once

    path = bundle_once(factory, opset)
    before = (path / "manifest.json").read_bytes()
    yield path
    assert (path / "manifest.json").read_bytes() == before, "a test changed the shared bundle"
    check_bundle(path)


@pytest.fixture(scope="session", params=RUNGS)
def a_rung(request: pytest.FixtureRequest) -> "Rung":
    """Every way to run the tiny bundle, for tests with one body."""
    from tests.fakes.bundles import rung

    bundle = "tiny_bundle_opset20" if request.param == "ort copy" else "tiny_bundle_in_place"
    return rung(request.param, request.getfixturevalue(bundle))
