"""The engines of a bundle: what is there already is kept, the rest is built, all or no manifest."""

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec

from memorywam_export.engines.engine import Compiler, device_target
from memorywam_export.engines.engine_audit import Audit, audited, memory_layers_in
from memorywam_export.engines.engine_jobs import Job, jobs_of
from memorywam_export.engines.engine_preflight import Preflight, preflight
from memorywam_export.recipes.engine_targets import check_rewrites, check_target, check_types
from memorywam_export.recipes.recipes import check_recipe, recipe_from_name
from memorywam_runtime.bundle import check_bundle
from memorywam_runtime.engines import (
    ENGINES_SCHEMA_VERSION,
    EngineEntry,
    EnginesManifest,
    engines_dir,
    read_engines,
    write_engines,
)
from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.files import atomic_write, sha256_of
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.report import Progress
from memorywam_runtime.versions import versions

__all__ = ["BuildOptions", "BuildResult", "GraphResult", "build_engines"]

_SUFFIX = ".engine"
_RECORD = ".entry.json"
_LAYERS = ".layers.json"
_TIMING_CACHE = "timing.cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What a build may choose; everything else is the bundle's."""

    backend: str
    target: str | None = None
    """As `sm_89`; None for the GPU in this machine."""
    out: Path | None = None
    """Directory to make BACKEND-TARGET in, instead of beside the bundle."""
    workspace_bytes: int | None = None
    force: bool = False
    """Build even if the preflight says that it does not fit."""
    dry_run: bool = False
    """Preflight only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphResult:
    """What became of one graph."""

    graph: str
    hit: bool
    """Its engine was there already."""
    weight_bytes: int
    entry: EngineEntry | None
    """None if it was not built: a dry run, or a fault."""
    faults: tuple[str, ...] = ()
    spelt_out: tuple[str, ...] = ()
    """Weights in 8 bits that the engine holds in floats, as their activations are wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What became of one target."""

    directory: Path
    target: str
    backend_version: str
    manifest: Manifest
    preflight: Preflight
    graphs: tuple[GraphResult, ...]

    @property
    def ok(self) -> bool:
        """No engine has a fault."""
        return not any(graph.faults for graph in self.graphs)


def build_engines(bundle: Path, options: BuildOptions) -> BuildResult:
    """Build what is missing of a bundle's engines for one target.

    Each engine is written whole, with a record beside it, as soon as it is built: after an
    interruption the next call goes on with the others. `engines.json` is written when all are
    there; until then the engines of before, if any, stay valid, because another engine has
    another file name.

    Args:
        bundle: The bundle's directory.
        options: What to build for, and where.

    Raises:
        BundleError: a damaged bundle, or a graph that the backend does not compile.
        InputError: a target or type that cannot be, a build that does not fit, or another build
            at work in the same directory.
        MissingPartError: the backend is not installed.
    """
    if options.workspace_bytes is not None and options.workspace_bytes < 1:
        raise InputError(f"found a workspace of {options.workspace_bytes} bytes; expected some")
    compiler = Compiler(options.backend)
    target = _target(options, compiler)
    manifest = check_bundle(bundle)
    jobs = jobs_of(
        bundle,
        manifest,
        backend=options.backend,
        version=compiler.version,
        target=target,
        workspace_bytes=options.workspace_bytes,
    )
    for job in jobs:
        check_types(options.backend, target, job.types)
    if manifest.quantization is not None:
        recipe = recipe_from_name(manifest.quantization.recipe)
        is_in_place = manifest.cache_write == "in_place"
        check_recipe(recipe, options.backend, target, compiler.version, is_in_place=is_in_place)
    check_rewrites(options.backend, target, manifest.rewrites)
    directory = engines_dir(bundle, options.backend, target)
    if options.out is not None:
        directory = options.out / directory.name
    hits = _hits(directory, jobs)
    misses = [job.weight_bytes for job in jobs if job.graph not in hits]
    check = preflight(misses, directory, options.workspace_bytes)
    if check.lacks and not options.force:
        raise InputError(
            f"{directory}: {'; '.join(check.lacks)}; expected enough of both: build on a larger "
            "machine (the target's own is not needed), free some, or try all the same with --force"
        )
    build = _Build(bundle, directory, target, compiler, manifest, options)
    graphs = build.skipped(jobs, hits) if options.dry_run else build.run(jobs, hits)
    return BuildResult(
        directory=directory,
        target=target,
        backend_version=compiler.version,
        manifest=manifest,
        preflight=check,
        graphs=graphs,
    )


class _Build:
    """One run over one directory."""

    def __init__(
        self,
        bundle: Path,
        directory: Path,
        target: str,
        compiler: Compiler,
        manifest: Manifest,
        options: BuildOptions,
    ) -> None:
        self.bundle, self.directory, self.target = bundle, directory, target
        self.compiler, self.manifest, self.options = compiler, manifest, options

    def skipped(self, jobs: list[Job], hits: Mapping[str, EngineEntry]) -> tuple[GraphResult, ...]:
        """Tell what a run would do."""
        return tuple(self._result(job, hits.get(job.graph), hit=job.graph in hits) for job in jobs)

    def run(self, jobs: list[Job], hits: Mapping[str, EngineEntry]) -> tuple[GraphResult, ...]:
        """Build what is no hit; write the manifest if nothing is wrong."""
        self.directory.mkdir(parents=True, exist_ok=True)
        results: list[GraphResult] = []
        with _alone_in(self.directory), Progress("build", total=len(jobs)) as progress:
            for job in jobs:
                progress.update(len(results), f"{job.graph} for {self.target}")
                if job.graph in hits:
                    results.append(self._result(job, hits[job.graph], hit=True))
                else:
                    results.append(self._built(job))
            entries = {r.graph: r.entry for r in results if r.entry is not None}
            if len(entries) == len(jobs):
                self._finish(entries)
        return tuple(results)

    def _result(
        self, job: Job, entry: EngineEntry | None, *, hit: bool, faults: tuple[str, ...] = ()
    ) -> GraphResult:
        return GraphResult(
            graph=job.graph,
            hit=hit,
            weight_bytes=job.weight_bytes,
            entry=entry,
            faults=faults,
            spelt_out=job.spelt_out,
        )

    def _built(self, job: Job) -> GraphResult:
        """Audit the network, and compile it only if it is as it should be."""
        started_s = time.monotonic()
        network = self.compiler.network(job.path, job.inputs, job.outputs)
        audit = audited(
            network.layers(),
            edges=(*network.inputs(), *network.outputs()),
            inputs=job.inputs,
            outputs=job.outputs,
            recipe=self.manifest.precision,
        )
        if audit.faults:
            return self._result(job, None, hit=False, faults=audit.faults)
        cache_path = self.directory / _TIMING_CACHE
        cache = bytearray(cache_path.read_bytes() if cache_path.is_file() else b"")
        content = network.build(
            [self.target],
            profile=job.shapes,
            workspace_bytes=self.options.workspace_bytes,
            timing_cache=cache,
        )
        del network
        if cache:
            atomic_write(cache_path, bytes(cache))
        if self.target == device_target():
            audit = self._seen_on_device(job, content, audit)
            if audit.faults:
                return self._result(job, None, hit=False, faults=audit.faults)
        entry = EngineEntry(
            graph=job.graph,
            file=job.stem + _SUFFIX,
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            graph_sha256=job.graph_sha256,
            key=job.key,
            profiles=() if job.profile is None else (job.profile,),
            audit=audit.entry,
            build_s=round(time.monotonic() - started_s, 3),
        )
        # Not copied into bytes: an engine of the real size is 10 GB.
        atomic_write(self.directory / entry.file, cast("bytes", content))
        atomic_write(self.directory / (job.stem + _RECORD), msgspec.json.encode(entry))
        return self._result(job, entry, hit=False)

    def _seen_on_device(self, job: Job, content: memoryview, audit: Audit) -> Audit:
        """Add what the engine's own inspector says, where its device is present."""
        information = self.compiler.information(content)
        if information is None:
            return audit
        atomic_write(self.directory / (job.stem + _LAYERS), information.encode())
        names = [s.name for s in (*job.inputs, *job.outputs) if s.name.startswith("memory")]
        copies = memory_layers_in(information, names)
        entry = msgspec.structs.replace(
            audit.entry, source="engine", memory_copies=(*audit.entry.memory_copies, *copies)
        )
        if not copies or not entry.num_memory_writes:
            return Audit(entry, audit.faults)
        fault = f"the engine has {len(copies)} layers that copy memory, first {copies[0]}"
        return Audit(entry, (*audit.faults, f"{fault}; expected none"))

    def _finish(self, entries: dict[str, EngineEntry]) -> None:
        """Write the manifest, then remove what it does not name."""
        hashes = {graph: entry.sha256 for graph, entry in entries.items()}
        parity = None
        with contextlib.suppress(BundleError):
            parity = read_engines(self.directory).parity
        write_engines(
            self.directory,
            EnginesManifest(
                schema_version=ENGINES_SCHEMA_VERSION,
                contract_hash=self.manifest.contract_hash,
                precision=self.manifest.precision,
                backend=self.options.backend,
                backend_version=self.compiler.version,
                target=self.target,
                recipe=self.manifest.precision,
                engines=entries,
                # A report vouches for the very engines that it was made with.
                parity=parity if parity and parity.engine_sha256s == hashes else None,
                versions=versions(),
            ),
        )
        kept = {entry.file.removesuffix(_SUFFIX) for entry in entries.values()}
        for path in sorted(self.directory.iterdir()):
            stem = path.name.partition(".")[0]
            old = path.name.endswith((_SUFFIX, _LAYERS)) and stem not in kept
            if old or path.name.endswith((_RECORD, ".draft")):
                path.unlink()


def _target(options: BuildOptions, compiler: Compiler) -> str:
    """Return the architecture to build for, once it is known that it can be."""
    target = options.target or device_target()
    if target is None:
        raise InputError(
            "found no --target, and no GPU in this machine to build for; expected --target, as "
            "--target sm_89"
        )
    check_target(options.backend, target)
    compiler.check_device(target)
    return target


def _hits(directory: Path, jobs: list[Job]) -> dict[str, EngineEntry]:
    """Return the engines that are there already: of the same key, and undamaged."""
    known: dict[str, EngineEntry] = {}
    with contextlib.suppress(BundleError):
        known = {entry.key: entry for entry in read_engines(directory).engines.values()}
    for job in jobs:
        record = directory / (job.stem + _RECORD)
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            entry = msgspec.json.decode(record.read_bytes(), type=EngineEntry)
            known[entry.key] = entry
    found = {}
    for job in jobs:
        known_entry, path = known.get(job.key), directory / (job.stem + _SUFFIX)
        if (
            known_entry is not None
            and known_entry.file == path.name
            and path.is_file()
            and path.stat().st_size == known_entry.num_bytes
            and sha256_of(path) == known_entry.sha256
        ):
            found[job.graph] = known_entry
    return found


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Refuse a second build in the same directory; the lock ends with the process."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another build is at work in {directory}; expected none: wait for it, or choose "
                "another directory with --out"
            ) from error
        yield
    finally:
        os.close(descriptor)
