"""Engines on disk, beside their bundle: where they are, whether they are what they should be."""

import hashlib
import logging
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from memorywam_runtime.engines_manifest import (
    ENGINES_FILE,
    ENGINES_SCHEMA_VERSION,
    AuditEntry,
    EngineEntry,
    EnginesManifest,
    ParityEntry,
    RowsProfile,
    engines_from_json,
    engines_schema,
    engines_to_json,
)
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import atomic_write, inside, read_file, sha256_of, shown
from memorywam_runtime.manifest import Manifest

__all__ = [
    "BUILT_BACKENDS",
    "ENGINES_FILE",
    "ENGINES_SCHEMA_VERSION",
    "AuditEntry",
    "EngineBackend",
    "EngineEntry",
    "EnginesManifest",
    "ParityEntry",
    "RowsProfile",
    "check_engines",
    "engines_dir",
    "engines_from_json",
    "engines_schema",
    "engines_to_json",
    "gist_buckets_of",
    "graph_hash",
    "manifest_on_device",
    "read_engines",
    "write_engines",
]

BUILT_BACKENDS = ("tensorrt", "tensorrt-rtx")
"""Those that run engines, not graphs."""
_LOG = logging.getLogger("memorywam")
_MOST_JSON_BYTES = 1 << 26


@runtime_checkable
class EngineBackend(Protocol):
    """A backend that runs engines built for one kind of device, not the bundle's graphs."""

    name: str
    version: str
    target: str
    allow_unverified: bool


def engines_dir(bundle_root: str | Path, backend: str, target: str) -> Path:
    """Return where engines of a bundle are by default: beside it, never in it.

    A bundle is the same for every device, and its files are all listed in its manifest.

    Args:
        bundle_root: The bundle's directory.
        backend: `tensorrt` or `tensorrt-rtx`.
        target: GPU architecture, as `sm_89`.
    """
    root = Path(bundle_root)
    if root.name in ("", ".."):
        root = root.resolve()
    return root.with_name(f"{root.name}.engines") / f"{backend}-{target}"


def graph_hash(manifest: Manifest, graph: str) -> str:
    """Return the hash of everything that decides a graph: its own file and the weights.

    Prompts and reports are left out: a new instruction needs no new engines.

    Raises:
        BundleError: the bundle has no such graph.
    """
    if graph not in manifest.graphs:
        raise BundleError(
            f"the bundle has no graph '{graph}'; expected one of {', '.join(manifest.graphs)}"
        )
    own = manifest.graphs[graph].file
    others = {entry.file for entry in manifest.graphs.values()} - {own}
    digest = hashlib.sha256()
    for name, sha256 in manifest.graph_files.items():
        if name not in others:
            digest.update(f"{name} {sha256}\n".encode())
    return digest.hexdigest()


def gist_buckets_of(engines: EnginesManifest, manifest: Manifest) -> tuple[int, ...]:
    """Return the gist buckets, in frames, whose rows every engine takes.

    Engines that write memory in place take the rows of one bucket alone, the largest: TensorRT
    wants the length of what it writes into fixed. A session on them starts there.

    Raises:
        BundleError: none fits.
    """
    rows = manifest.rows
    profiles = [p for entry in engines.engines.values() for p in entry.profiles]
    found = tuple(
        bucket
        for bucket in manifest.memory.gist_buckets
        if all(p.rows_min <= rows.total(bucket) <= p.rows_max for p in profiles)
    )
    if not found:
        raise BundleError(
            f"found no gist bucket of {list(manifest.memory.gist_buckets)} frames whose rows every "
            "engine takes; expected at least the largest: build the engines again"
        )
    return found


def manifest_on_device(
    root: Path, manifest: Manifest, backend: object, directory: str | Path | None = None
) -> Manifest:
    """Return the manifest as a backend loads it: for one with engines, they stand for the graphs.

    Args:
        root: The bundle's directory.
        manifest: Of the bundle.
        backend: What will load the graphs.
        directory: Of the engines; beside the bundle by default. Only for backends with engines.

    Returns:
        The manifest; with engines, each graph's file is its engine's absolute path, and the gist
        buckets are those that the engines take.

    Raises:
        InputError: a directory for a backend that takes graphs as they are.
        BundleError: engines that do not pass `check_engines`.
    """
    if not isinstance(backend, EngineBackend):
        if directory is not None:
            raise InputError(
                f"found engines {directory} for backend {getattr(backend, 'name', backend)}, which "
                "runs the bundle's graphs as they are; expected tensorrt or tensorrt-rtx"
            )
        return manifest
    where = Path(directory or engines_dir(root, backend.name, backend.target)).resolve()
    engines = check_engines(
        where,
        manifest,
        backend=backend.name,
        backend_version=backend.version,
        target=backend.target,
        allow_unverified=backend.allow_unverified,
    )
    buckets = gist_buckets_of(engines, manifest)
    graphs = {
        name: msgspec.structs.replace(entry, file=str(where / engines.engines[name].file))
        for name, entry in manifest.graphs.items()
    }
    plan = msgspec.structs.replace(manifest.memory, gist_buckets=buckets)
    return msgspec.structs.replace(manifest, graphs=graphs, memory=plan)


def write_engines(directory: Path, engines: EnginesManifest) -> None:
    """Write `engines.json` whole, or leave the old one."""
    atomic_write(directory / ENGINES_FILE, engines_to_json(engines))


def read_engines(directory: str | Path) -> EnginesManifest:
    """Read a directory's `engines.json`; the files that it names are not looked at.

    Raises:
        BundleError: no engines there, a manifest that does not fit its schema, or a path that
            leaves the directory.
    """
    root = Path(directory)
    path = root / ENGINES_FILE
    if not path.is_file():
        raise BundleError(
            f"no engines at {root}: it has no {ENGINES_FILE}, which is written when every engine "
            "is built; make them, or go on with an interrupted build, with "
            "`memorywam build BUNDLE --backend tensorrt-rtx --target sm_89`"
        )
    engines = engines_from_json(read_file(path, _MOST_JSON_BYTES, BundleError))
    for entry in engines.engines.values():
        inside(root, entry.file)
    if engines.parity is not None:
        inside(root, engines.parity.file)
    return engines


def check_engines(
    directory: str | Path,
    manifest: Manifest,
    *,
    backend: str,
    backend_version: str,
    target: str,
    allow_unverified: bool = False,
) -> EnginesManifest:
    """Read a directory of engines and compare all that it says with what is here.

    The version must be the very same: neither backend promises that another release, even a patch
    release, reads an engine, and what it does with it would not be what was verified.

    Args:
        directory: Holds `engines.json`.
        manifest: Of the bundle whose graphs the engines stand for.
        backend: What will run them: `tensorrt` or `tensorrt-rtx`.
        backend_version: Its version here, as `1.7.1.116`.
        target: Architecture of the device here, as `sm_89`.
        allow_unverified: Take engines that no passing parity report vouches for, with a warning.

    Raises:
        BundleError: the first thing that does not hold, and what to run to mend it.
    """
    root = Path(directory)
    engines = read_engines(root)
    again = f"`memorywam build BUNDLE --backend {backend} --target {target}`"
    for what, found, expected in (
        ("are of backend", engines.backend, backend),
        (f"were built by {backend}", engines.backend_version, backend_version),
        ("are for a device of architecture", engines.target, target),
        ("are of a bundle in precision", engines.precision, manifest.precision),
        ("are of contract", engines.contract_hash, manifest.contract_hash),
    ):
        if found != expected:
            raise BundleError(
                f"{root}: the engines {what} {found}; expected {expected}: build with {again}"
            )
    _check_graphs(root, engines, manifest, again)
    for entry in engines.engines.values():
        _check_file(root, entry.file, entry.num_bytes, entry.sha256, f"build with {again}")
    if doubt := _doubt(root, engines):
        if not allow_unverified:
            raise BundleError(
                f"{root}: {doubt}; expected a passing parity report of these very engines: run "
                f"`memorywam verify BUNDLE{_against(manifest)} --backend {backend} --engine {root}`"
                " on the device, or allow unverified engines explicitly"
            )
        _LOG.warning("%s: %s; running all the same, as was allowed", root, doubt)
    return engines


def _against(manifest: Manifest) -> str:
    """Return what engines are verified against: a quantized bundle's, against its own graphs."""
    return " --checkpoint CHECKPOINT" if manifest.quantization is None else ""


def _check_graphs(root: Path, engines: EnginesManifest, manifest: Manifest, again: str) -> None:
    """Refuse engines of other graphs than the bundle's."""
    if wrong := sorted(set(engines.engines) ^ set(manifest.graphs)):
        raise BundleError(
            f"{root}: engines and graphs of the bundle do not match one to one: {wrong[:4]} stand "
            f"on one side only; build with {again}"
        )
    for graph, entry in engines.engines.items():
        expected = graph_hash(manifest, graph)
        if entry.graph_sha256 != expected:
            raise BundleError(
                f"{root}: the engine of '{graph}' was built from a graph or weights that hash to "
                f"{entry.graph_sha256[:12]}...; this bundle's hash to {expected[:12]}...: it is "
                f"another bundle's, or the bundle was exported again; build with {again}"
            )


def _check_file(root: Path, name: str, num_bytes: int | None, sha256: str, remedy: str) -> None:
    """Refuse a file that is missing or not the one that was written."""
    path = inside(root, name)
    if not path.is_file():
        raise BundleError(
            f"{root}: {shown(name)} is missing; copy the whole directory, or {remedy}"
        )
    size = path.stat().st_size
    if num_bytes is not None and size != num_bytes:
        raise BundleError(
            f"{root}: {shown(name)} has {size} bytes; expected {num_bytes}: the copy is incomplete;"
            f" copy it again, or {remedy}"
        )
    found = sha256_of(path)
    if found != sha256:
        raise BundleError(
            f"{root}: {shown(name)} hashes to {found[:12]}...; expected {sha256[:12]}...: the file "
            f"was damaged or changed; copy it again, or {remedy}"
        )


def _doubt(root: Path, engines: EnginesManifest) -> str:
    """Return why no parity report vouches for these engines, or nothing."""
    parity = engines.parity
    if parity is None:
        return "found no parity report"
    try:
        _check_file(root, parity.file, None, parity.sha256, "verify again")
    except BundleError as error:
        return f"found no whole parity report ({error})"
    if not parity.passed:
        return f"the parity report {parity.file} says that a check failed"
    here = {graph: entry.sha256 for graph, entry in engines.engines.items()}
    if other := sorted(
        graph
        for graph in set(here) | set(parity.engine_sha256s)
        if here.get(graph) != parity.engine_sha256s.get(graph)
    ):
        return f"the parity report {parity.file} was made for other engines: {', '.join(other)}"
    return ""
