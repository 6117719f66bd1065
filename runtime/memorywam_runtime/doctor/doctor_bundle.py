"""What a bundle needs of this machine: that it opens, and memory by the length of an episode."""

import importlib
from collections.abc import Iterator

from memorywam_runtime.doctor.doctor_finding import Asked, Finding
from memorywam_runtime.doctor.doctor_machine import available_bytes
from memorywam_runtime.errors import MemorywamError, MissingPartError

__all__ = ["bundle_findings"]

_MIB = 1 << 20


def bundle_findings(asked: Asked) -> Iterator[Finding]:
    """Open the bundle that was asked for, and hold its memory plan against what is free.

    Raises:
        MissingPartError: a package that opens bundles is not there.
    """
    path = asked.bundle
    if path is None:
        return
    try:
        # By name: the doctor must run where numpy and msgspec are what is missing.
        opener = importlib.import_module("memorywam_runtime.bundle")
        sizes = importlib.import_module("memorywam_runtime.bench.bench_sizes")
    except ModuleNotFoundError as error:
        raise MissingPartError(
            f"{path} cannot be opened: {error}. Run doctor without a bundle, or install memorywam "
            "again."
        ) from error
    try:
        session = opener.open_bundle(path)
    except MemorywamError as error:
        yield Finding(part="bundle", status="missing", found=str(error), fix="export it again")
        return
    yield Finding(part="bundle", status="ok", found=path)
    manifest = session.manifest
    free = available_bytes(asked.root)
    if free is None:
        return
    # The bundle is open: its weights, and memory of the first bucket, are taken already.
    contract, taken = manifest.contract, sizes.memory_bytes(manifest, 1)
    told, fitting, most = [], 0, sizes.default_frames(manifest)[-1]
    lengths = sorted({*sizes.default_frames(manifest), *manifest.memory.gist_buckets})
    for frames in (one for one in lengths if one <= most):
        size = sizes.memory_bytes(manifest, frames)
        fits = size - taken <= free
        fitting = frames if fits else fitting
        if frames in sizes.default_frames(manifest):
            told.append(f"{frames} frames {size / _MIB:,.1f} MiB")
    seconds = fitting * contract.steps_per_frame / contract.observations.control_hz
    found = f"{', '.join(told)}; {free / _MIB:,.0f} MiB free: episodes of {seconds:,.0f} s fit"
    if fitting == most:
        yield Finding(part="memory plan", status="ok", found=found)
    else:
        fix = f"keep episodes to {fitting} frames, free memory, or export with fewer --max-frames"
        yield Finding(part="memory plan", status="warn", found=found, fix=fix)
