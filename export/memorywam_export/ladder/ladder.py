"""The rungs of the ladder that a bundle can be verified on, from the reference to a device."""

import contextlib
import logging
from collections.abc import Iterator
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

__all__ = ["ladder", "on_cpu", "open_device"]


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

    def in_torch(dtype: torch.dtype) -> Session:
        rewrites = rewrites_of_manifest(manifest)
        return eager_session(
            rewritten_model(checkpoint.contract, checkpoint.weights, dtype, rewrites),
            checkpoint.normalization,
            cache_write=manifest.cache_write,
            plan=plan,
        )

    precision = manifest.precision
    rungs = [
        Rung(name="graph fp64", precision="fp64", open=lambda: in_torch(torch.float64)),
        Rung(name="graph fp32", precision="fp32", open=lambda: in_torch(torch.float32)),
    ]
    if precision != "fp32":
        dtype = PRECISIONS[precision]
        rungs.append(
            Rung(name=f"graph {precision}", precision=precision, open=lambda: in_torch(dtype))
        )
    if precision != "bf16":  # ONNX Runtime has no bfloat16 on the CPU
        rungs.append(Rung(name="onnx", precision=precision, open=lambda: on_cpu(root, plan)))
    if device is not None:
        rungs.append(Rung(name=device.backend.name, precision=precision, open=lambda: device))
    return rungs


def on_cpu(root: Path, plan: MemoryPlan, *, as_written: bool = False) -> Session:
    """Return a session on ONNX Runtime, with memory of the sizes of a plan.

    Args:
        root: The bundle.
        plan: Of memory.
        as_written: Compute Q/DQ as they stand, without kernels of narrow types.
    """
    with _untold():
        session = open_bundle(root, allow_unverified=True, as_written=as_written)
    if session.manifest.memory == plan:
        return session
    manifest = msgspec.structs.replace(session.manifest, memory=plan)
    return Session(manifest, session.backend, session.engines, root=root)


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
