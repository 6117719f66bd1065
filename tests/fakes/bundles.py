"""Tiny real bundles, exported once a run; what opens, copies, damages and compares them."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.fakes.exporter import torchlib_once

from memorywam_export.bundles.bundle import ExportOptions, export_bundle, model_from_weights
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.eager.eager import EagerBackend
from memorywam_export.graphs.rewrites import rewrites_of_manifest
from memorywam_runtime.backends import Backend, Engine, backend_from_name
from memorywam_runtime.bundle import MANIFEST_FILE, check_bundle
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.manifest import Manifest, MemoryPlan, Precision
from memorywam_runtime.observation import Observation
from memorywam_runtime.policy import PolicySnapshot
from memorywam_runtime.session import Session
from memorywam_runtime.snapshot import SessionSnapshot

__all__ = [
    "TINY",
    "Rung",
    "bundle_once",
    "copy_of",
    "differences",
    "edit_manifest",
    "observations_at",
    "rung",
]

TINY = "random:tiny:0"


def bundle_once(
    factory: pytest.TempPathFactory,
    opset: int,
    *,
    precision: Precision = "fp32",
    no_rewrites: tuple[str, ...] = (),
) -> Path:
    """Export `TINY`, unless another worker of this run has done so; return the bundle. Read only.

    Args:
        factory: Of the run's folder.
        opset: Of the graphs.
        precision: Of the bundle.
        no_rewrites: Exact rewrites to leave out.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in the run's
    path = base / "-".join(("tiny", precision, f"opset{opset}", *no_rewrites))
    with (base / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            torchlib_once()
            options = ExportOptions(precision=precision, opset=opset, no_rewrites=no_rewrites)
            export_bundle(checkpoint_from_argument(TINY), path, options)
    return path


def copy_of(bundle: Path, folder: Path, name: str = "copy") -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(bundle, folder / name))


def edit_manifest(bundle: Path, change: Callable[[Any], object]) -> None:
    """Let `change` work on the parsed manifest, and write what it leaves."""
    path = bundle / MANIFEST_FILE
    parsed = json.loads(path.read_bytes())
    change(parsed)
    path.write_text(json.dumps(parsed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A bundle's graphs, loaded once; sessions on them share nothing but the weights."""

    name: str
    root: Path
    manifest: Manifest
    backend: Backend
    engines: dict[str, Engine]

    def session(self, *buckets: int, on_full: Any = "refuse") -> Session:
        """Return a new session, with other gist buckets than the bundle's if some are given."""
        manifest = self.manifest
        if buckets:
            plan = MemoryPlan(
                max_frames=buckets[-1],
                gist_buckets=buckets,
                on_full=on_full,
                bytes_per_token=manifest.memory.bytes_per_token,
            )
            manifest = msgspec.structs.replace(manifest, memory=plan)
        return Session(manifest, self.backend, self.engines, root=self.root)


def rung(name: str, bundle: Path) -> Rung:
    """Load a bundle's graphs in the way that the rung's name says."""
    manifest = check_bundle(bundle)
    backend: Backend
    if name == "eager":
        checkpoint = checkpoint_from_argument(TINY)
        rewrites = rewrites_of_manifest(manifest)
        model = model_from_weights(checkpoint, bundle / "weights.safetensors", rewrites)
        backend = EagerBackend(model, manifest.cache_write)
    else:
        backend = backend_from_name("ort", num_threads=1, spin=False)
    engines = {
        graph: backend.load(bundle / entry.file, entry)
        for graph, entry in manifest.graphs.items()
        if graph != "prompt_kv"
    }
    return Rung(name=name, root=bundle, manifest=manifest, backend=backend, engines=engines)


def observations_at(
    contract: InferenceContract, steps: Iterable[int], seed: int = 0
) -> list[Observation]:
    """Return one observation a step; the same for the same step and seed."""
    found = []
    for step in steps:
        rng = np.random.default_rng((seed, step))
        images = {
            camera: rng.integers(0, 256, (24, 20, 3), np.uint8)
            for camera in contract.observations.cameras
        }
        state = rng.standard_normal(contract.actions.state_dim)
        found.append(Observation(images=images, state=state, step=step))
    return found


def differences(
    first: SessionSnapshot | PolicySnapshot, second: SessionSnapshot | PolicySnapshot
) -> list[str]:
    """Return the names of all that differs between two snapshots, bit for bit."""
    if isinstance(first, PolicySnapshot) and isinstance(second, PolicySnapshot):
        found = [
            name
            for name in ("instruction", "next_step", "noise_state")
            if getattr(first, name) != getattr(second, name)
        ]
        return found + differences(first.session, second.session)
    assert isinstance(first, SessionSnapshot)
    assert isinstance(second, SessionSnapshot)
    found = [
        name
        for name in ("contract_hash", "memory", "bucket", "turn", "has_state")
        if getattr(first, name) != getattr(second, name)
    ]
    names = sorted(set(first.arrays) | set(second.arrays))
    return found + [
        name
        for name in names
        if name not in first.arrays
        or name not in second.arrays
        or first.arrays[name].tobytes() != second.arrays[name].tobytes()
    ]
