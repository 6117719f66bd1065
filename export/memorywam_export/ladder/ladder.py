"""The rungs of the ladder that a bundle can be verified on, from the reference to a device."""

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import torch

from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_export.eager.eager import eager_session, rewritten_model
from memorywam_export.graphs.rewrites import rewrites_of_manifest
from memorywam_export.ladder.climb import Rung
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.manifest import Manifest, MemoryPlan
from memorywam_runtime.session import Session

__all__ = ["in_torch", "ladder", "on_cpu", "open_device", "with_plan"]


def open_device(root: Path, backend: str, engines: Path | None) -> Session:
    """Return a session on a device, on engines that may not have been verified yet."""
    with _untold():
        return open_bundle(root, backend=backend, engines=engines, allow_unverified=True)


def ladder(
    root: Path, manifest: Manifest, checkpoint: Checkpoint, device: Session | None = None
) -> list[Rung]:
    """Return the rungs above the reference, the closest first.

    Args:
        root: The bundle.
        manifest: Its manifest.
        checkpoint: What it was made from.
        device: One more; all others then have memory of the sizes that it takes.
    """
    plan = manifest.memory if device is None else device.manifest.memory
    precision = manifest.precision
    kinds: dict[str, torch.dtype] = {
        "fp64": torch.float64,
        "fp32": torch.float32,
        precision: PRECISIONS[precision],
    }
    rungs = [
        Rung(
            name=f"graph {name}",
            precision=name,
            open=partial(in_torch, manifest, checkpoint, dtype, plan),
        )
        for name, dtype in kinds.items()
    ]
    if precision != "bf16":  # ONNX Runtime has no bfloat16 on the CPU
        rungs.append(Rung(name="onnx", precision=precision, open=lambda: on_cpu(root, plan)))
    if device is not None:
        rungs.append(Rung(name=device.backend.name, precision=precision, open=lambda: device))
    return rungs


def in_torch(
    manifest: Manifest, checkpoint: Checkpoint, dtype: torch.dtype, plan: MemoryPlan
) -> Session:
    """Return a session on a bundle's graphs in torch, with its rewrites.

    Args:
        manifest: The bundle's.
        checkpoint: What it was made from.
        dtype: Of weights, memory and arithmetic, whatever the bundle's.
        plan: Of memory.
    """
    rewrites = rewrites_of_manifest(manifest)
    return eager_session(
        rewritten_model(checkpoint.contract, checkpoint.weights, dtype, rewrites),
        checkpoint.normalization,
        cache_write=manifest.cache_write,
        plan=plan,
    )


def on_cpu(root: Path, plan: MemoryPlan, *, as_written: bool = False) -> Session:
    """Return a session on ONNX Runtime, with memory of the sizes of a plan.

    Args:
        root: The bundle.
        plan: Of memory.
        as_written: Compute Q/DQ as they stand, without kernels of narrow types.
    """
    with _untold():
        session = open_bundle(root, allow_unverified=True, as_written=as_written)
    return with_plan(session, plan)


def with_plan(session: Session, plan: MemoryPlan) -> Session:
    """Return the session, or one on the same engines with memory of the sizes of a plan."""
    if session.manifest.memory == plan:
        return session
    manifest = msgspec.structs.replace(session.manifest, memory=plan)
    return Session(manifest, session.backend, session.engines, root=session.root)


@contextlib.contextmanager
def _untold() -> Iterator[None]:
    """Open a bundle without its log saying that nobody has verified it: that is going on."""
    log = logging.getLogger(open_bundle.__module__)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
