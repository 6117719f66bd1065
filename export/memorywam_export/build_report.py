"""What the verb build tells: each engine, whether it was built, and what the audit found."""

from collections.abc import Sequence

from memorywam_export.engines.engine_build import BuildResult, GraphResult
from memorywam_runtime.report import Outcome

__all__ = ["built_outcome"]

_HEADERS = ("target", "graph", "engine", "s", "MB", "precision", "products", "memory")


def built_outcome(results: Sequence[BuildResult], *, dry_run: bool) -> Outcome:
    """Tell what a build did for each target, or would do."""
    return Outcome(
        ok=all(result.ok for result in results),
        headers=_HEADERS,
        rows=[_row(result, graph) for result in results for graph in result.graphs],
        data={"dry_run": dry_run, "targets": [_data(result) for result in results]},
        note="\n".join(
            line
            for result in results
            for line in (_note(result, dry_run=dry_run), *_spelt_out_notes(result))
        )
        + _failed_note(results),
    )


def _row(result: BuildResult, graph: GraphResult) -> tuple[object, ...]:
    """Return a line of the table."""
    entry, precision = graph.entry, result.manifest.precision
    if entry is None:
        state = "fault" if graph.faults else "miss"
        return (result.target, graph.graph, state, "", "", precision, "", "")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in entry.audit.gemm_share.items())
    writes, copies = entry.audit.num_memory_writes, len(entry.audit.memory_copies)
    memory = f"{writes} in place" if writes else f"{copies} copied" if copies else ""
    return (
        result.target,
        graph.graph,
        "hit" if graph.hit else "built",
        "" if graph.hit else f"{entry.build_s:.1f}",
        f"{entry.num_bytes / 1e6:,.1f}",
        precision,
        shares,
        memory,
    )


def _data(result: BuildResult) -> dict[str, object]:
    """Return the same for machines."""
    check = result.preflight
    return {
        "target": result.target,
        "directory": str(result.directory),
        "backend_version": result.backend_version,
        "precision": result.manifest.precision,
        "cache_write": result.manifest.cache_write,
        "preflight": {
            "host_bytes": check.host_bytes,
            "host_free_bytes": check.host_free_bytes,
            "disk_bytes": check.disk_bytes,
            "disk_free_bytes": check.disk_free_bytes,
            "workspace_bytes": check.workspace_bytes,
        },
        "graphs": {graph.graph: _graph_data(graph) for graph in result.graphs},
    }


def _graph_data(graph: GraphResult) -> dict[str, object]:
    """Return one graph's figures."""
    found: dict[str, object] = {
        "hit": graph.hit,
        "weight_bytes": graph.weight_bytes,
        "faults": list(graph.faults),
        "spelt_out": list(graph.spelt_out),
    }
    if graph.entry is None:
        return found
    entry, audit = graph.entry, graph.entry.audit
    return found | {
        "file": entry.file,
        "sha256": entry.sha256,
        "key": entry.key,
        "bytes": entry.num_bytes,
        "seconds": entry.build_s,
        "rows": [[p.rows_min, p.rows_opt, p.rows_max] for p in entry.profiles],
        "audit": {
            "source": audit.source,
            "gemm_weight_bytes": audit.gemm_weight_bytes,
            "gemm_share": audit.gemm_share,
            "num_memory_writes": audit.num_memory_writes,
            "bytes_per_write": audit.bytes_per_write,
            "memory_copies": list(audit.memory_copies),
        },
    }


def _spelt_out_notes(result: BuildResult) -> list[str]:
    """Say which narrow weights are not narrow in the engines, and why."""
    return [
        f"{graph.graph} for {result.target}: {len(graph.spelt_out)} weights in 8 bits are held in "
        f"{result.manifest.precision}, as their activations are wide and TensorRT takes both "
        "operands of a product in 8 bits or neither: the same numbers, more bytes"
        for graph in result.graphs
        if graph.spelt_out
    ]


def _failed_note(results: Sequence[BuildResult]) -> str:
    """Say that engines of a bundle that failed its checks are of no use yet."""
    parity = results[0].manifest.parity
    if parity is None or parity.passed:
        return ""
    return (
        f"\nthe bundle's own checks failed ({parity.page}): it does not open, and its engines with "
        "it; expected one that passed: make that, then build"
    )


def _note(result: BuildResult, *, dry_run: bool) -> str:
    """Return the closing sentence of one target."""
    faults = [f"{graph.graph}: {fault}" for graph in result.graphs for fault in graph.faults]
    if faults:
        return (
            f"{result.directory}: not complete, {len(faults)} faults; the first: {faults[0]}. "
            "No engines.json was written; export the checkpoint again with this release"
        )
    hits = sum(graph.hit for graph in result.graphs)
    misses = len(result.graphs) - hits
    if dry_run:
        return f"{result.directory}: {hits} there, {misses} to build; {result.preflight.text}"
    total = sum(graph.entry.num_bytes for graph in result.graphs if graph.entry is not None)
    seconds = sum(
        graph.entry.build_s for graph in result.graphs if graph.entry is not None and not graph.hit
    )
    return (
        f"{result.directory}: {hits} there, {misses} built in {seconds:.1f} s, "
        f"{total / 1e6:,.1f} MB; they run once `memorywam verify` has passed on the device"
    )
