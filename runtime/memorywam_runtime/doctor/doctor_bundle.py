"""What a bundle needs of this machine: that it opens, with all the memory that it will take."""

import importlib
from collections.abc import Iterator

from memorywam_runtime.doctor.doctor_finding import Asked, Finding
from memorywam_runtime.errors import MemorywamError, MissingPartError
from memorywam_runtime.free_memory import available_bytes

__all__ = ["bundle_findings"]

_MIB = 1 << 20


def bundle_findings(asked: Asked) -> Iterator[Finding]:
    """Open the bundle that was asked for, and tell its memory by the length of an episode.

    Opening refuses memory that is more than what is free.

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
    free = available_bytes(asked.root)
    try:
        session = opener.open_bundle(path)
    except MemorywamError as error:
        fix = "do as it says, or export the bundle again"
        yield Finding(part="bundle", status="missing", found=str(error), fix=fix)
        return
    yield Finding(part="bundle", status="ok", found=path)
    manifest = session.manifest
    contract, lengths = manifest.contract, sizes.default_frames(manifest)
    told = [
        f"{frames} frames {sizes.memory_bytes(manifest, frames) / _MIB:,.1f} MiB"
        for frames in lengths
    ]
    seconds = lengths[-1] * contract.steps_per_frame / contract.observations.control_hz
    taken = sizes.memory_bytes(manifest, manifest.memory.max_frames)
    found = (
        f"{', '.join(told)}, {seconds:,.0f} s; {taken / _MIB:,.1f} of {free / _MIB:,.0f} MiB free "
        "are taken at opening"
    )
    yield Finding(part="memory plan", status="ok", found=found)
