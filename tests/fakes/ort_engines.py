"""Engines of a bundle that compute with ONNX Runtime behind the fake driver."""

from pathlib import Path
from typing import Any

import msgspec
from tests.fakes.engines import fake_engines
from tests.fakes.tensorrt import plan_from_onnx

from memorywam_export.engines.engine_jobs import Job, jobs_of
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.engines import read_engines, write_engines
from memorywam_runtime.files import sha256_of

__all__ = ["engines_of"]

RTX = "tensorrt-rtx"


def engines_of(library: Any, bundle: Path, folder: Path, computing: Path | None = None) -> Path:
    """Return engines that take the shapes for which the real ones are built.

    Args:
        library: The fake package.
        bundle: That they are said to be of.
        folder: To make.
        computing: A bundle of the same tensors, whose graphs they compute instead.
    """
    manifest, version = read_manifest(bundle), library.__version__
    fake_engines(folder, manifest, target="sm_89", backend_version=version)
    found = read_engines(folder)
    entries = {}
    for job in jobs_of(bundle, manifest, backend=RTX, version=version, target="sm_89"):
        entry = msgspec.structs.replace(
            manifest.graphs[job.graph], inputs=job.inputs, outputs=job.outputs
        )
        path = (computing or bundle) / job.path.name
        plan = plan_from_onnx(path, entry, **_open_sizes(job))
        path = library.file_of(folder / found.engines[job.graph].file, plan)
        entries[job.graph] = msgspec.structs.replace(
            found.engines[job.graph],
            num_bytes=path.stat().st_size,
            sha256=sha256_of(path),
            profiles=() if job.profile is None else (job.profile,),
        )
    write_engines(folder, msgspec.structs.replace(found, engines=entries))
    return folder


def _open_sizes(job: Job) -> dict[str, Any]:
    """Return (least, tuned for, most) of every size that stays open in a job's engine."""
    return {
        size: tuple(shape[axis] for shape in job.shapes[spec.name])
        for spec in job.inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str)
    }
