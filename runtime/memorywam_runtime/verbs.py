"""The verb inspect: what a bundle holds."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memorywam_runtime.errors import BundleError, InputError
from memorywam_runtime.report import Outcome

if TYPE_CHECKING:
    from memorywam_runtime.manifest import GraphCost, Manifest

__all__ = ["Inspect"]


class Inspect:
    """The verb: what a bundle holds; no engine is loaded."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("bundle", metavar="BUNDLE")
        parser.add_argument("--graph", metavar="NAME", help="list every tensor of one graph")

    def run(self, args: argparse.Namespace) -> Outcome:
        """Check every hash and tell."""
        from memorywam_runtime.bundle import check_bundle

        root = Path(args.bundle)
        manifest = check_bundle(root)
        return _bundle(root, manifest) if args.graph is None else _graph(manifest, args.graph)


def _bundle(root: Path, manifest: "Manifest") -> Outcome:
    """Tell of the whole bundle."""
    from memorywam_runtime.bundle import WEIGHTS_FILE
    from memorywam_runtime.weight_bytes import weight_bytes_by_type

    has_weights = WEIGHTS_FILE in manifest.files
    weights = weight_bytes_by_type(root / WEIGHTS_FILE) if has_weights else {}
    graphs, memory, engines = _graphs(manifest), _memory(manifest), _engines(root, manifest)
    total = sum(entry.num_bytes for entry in manifest.files.values())
    return Outcome(
        ok=True,
        headers=("part", "name", "what"),
        rows=_bundle_rows(manifest, graphs, memory, weights, engines),
        data=_bundle_data(manifest, graphs, memory)
        | {"bytes": total, "weight_bytes": weights, "engines": engines},
        note=f"{len(manifest.files)} files, {total / 1e6:,.1f} MB; every hash is right",
    )


def _bundle_rows(
    manifest: "Manifest",
    graphs: dict[str, dict[str, Any]],
    memory: list[dict[str, Any]],
    weights: dict[str, int],
    engines: dict[str, str],
) -> list[tuple[str, str, str]]:
    """Return the table of the whole bundle."""
    plan = manifest.memory
    form = f"opset {manifest.opset}, memory written {manifest.cache_write.replace('_', ' ')}"
    rows: list[tuple[str, str, str]] = [
        ("contract", manifest.contract.name, manifest.contract_hash),
        ("source", manifest.source.checkpoint, manifest.source.sha256[:12]),
        ("form", manifest.precision, form),
    ]
    rows += [("weights", kind, f"{count:,} bytes") for kind, count in weights.items()]
    rows += _quantized(manifest)
    rows += [
        ("graph", name, f"{row['inputs']} in, {row['outputs']} out, {row['bytes']:,} bytes")
        for name, row in graphs.items()
    ]
    rows += [
        ("cost", name, _cost(entry.cost))
        for name, entry in manifest.graphs.items()
        if entry.cost is not None
    ]
    rows.append(("rewrites", "exact", ", ".join(manifest.rewrites) or "none"))
    rows += [
        (
            "memory",
            f"{row['frames']} frames",
            (
                f"{row['rows']} rows, {row['bytes'] / 1e6:,.2f} MB; all frames whole would take"
                f" {row['full_history_bytes'] / 1e6:,.2f} MB"
            ),
        )
        for row in memory
    ]
    written = _update_bytes(manifest)
    way = "in place" if manifest.cache_write == "in_place" else "by a copy of its new rows"
    rows.append(("memory", "an update", f"writes {written:,} bytes {way}, however full it is"))
    rows.append(("memory", "when full", f"{plan.on_full}, after {plan.max_frames} frames"))
    rows += [
        ("prompt", repr(prompt.text), f"{prompt.num_tokens} tokens, {prompt.encoder}")
        for prompt in manifest.prompts
    ]
    rows.append(("report", "parity", _parity(manifest)))
    rows += [("engines", name, state) for name, state in engines.items()]
    return rows + [
        ("made with", name, version) for name, version in sorted(manifest.versions.items())
    ]


def _bundle_data(
    manifest: "Manifest", graphs: dict[str, dict[str, Any]], memory: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the same for machines."""
    import msgspec

    plan = manifest.memory
    return {
        "contract_hash": manifest.contract_hash,
        "contract": manifest.contract.name,
        "source": msgspec.to_builtins(manifest.source),
        "precision": manifest.precision,
        "opset": manifest.opset,
        "cache_write": manifest.cache_write,
        "rewrites": manifest.rewrites,
        "quantization": _quantized_data(manifest),
        "graphs": graphs,
        "memory": {
            "max_frames": plan.max_frames,
            "on_full": plan.on_full,
            "gist_buckets": plan.gist_buckets,
            "bytes_per_token": plan.bytes_per_token,
            "update_bytes": _update_bytes(manifest),
            "by_frames": memory,
        },
        "prompts": msgspec.to_builtins(manifest.prompts),
        "parity": msgspec.to_builtins(manifest.parity),
        "versions": manifest.versions,
    }


def _quantized(manifest: "Manifest") -> list[tuple[str, str, str]]:
    """Tell what of the bundle is narrow."""
    found = manifest.quantization
    if found is None:
        return []
    sites = f"{len(found.sites)} products; {len(found.wide)} stay wide"
    rows: list[tuple[str, str, str]] = [
        ("quantized", found.recipe, sites if found.sites else "no product")
    ]
    window = manifest.precision if found.memory is None else found.memory.dtype
    rows.append(("quantized", "window", f"keys and values in {window}"))
    if found.table is not None:
        told = f"{found.table}, sha256 {manifest.files[found.table].sha256[:12]}"
        rows.append(("quantized", "scales", told))
    return rows


def _quantized_data(manifest: "Manifest") -> dict[str, Any] | None:
    """Return the same for machines."""
    found = manifest.quantization
    if found is None:
        return None
    return {
        "recipe": found.recipe,
        "num_sites": len(found.sites),
        "num_wide": len(found.wide),
        "window": None if found.memory is None else found.memory.dtype,
        "table": found.table,
    }


def _parity(manifest: "Manifest") -> str:
    """Say whether the bundle was found to be what it was made from."""
    report = manifest.parity
    if report is None:
        return f"none: run `memorywam {'calibrate' if manifest.quantization else 'verify'}`"
    if report.sha256s != manifest.judged_files:
        return f"about other graphs, weights or fields of the manifest: {report.page}"
    return f"{'every check held' if report.passed else 'CHECKS FAILED'}: {report.page}"


def _engines(root: Path, manifest: "Manifest") -> dict[str, str]:
    """Tell of the engines beside a bundle, by directory; what they say of themselves, unread."""
    from memorywam_runtime.engines import engines_dir, graph_hash, read_engines

    beside = engines_dir(root, "any", "any").parent
    found: dict[str, str] = {}
    for place in sorted(beside.glob("*-sm_*")):
        try:
            engines = read_engines(place)
        except BundleError:
            found[place.name] = "not complete: run the same `memorywam build` again"
            continue
        parity, entries = engines.parity, engines.engines
        hashes = {name: graph_hash(manifest, name) for name in manifest.graphs}
        if {name: entry.graph_sha256 for name, entry in entries.items()} != hashes:
            state = "OF OTHER GRAPHS: build again"
        elif parity is None or parity.engine_sha256s != {n: e.sha256 for n, e in entries.items()}:
            state = "not verified: run `memorywam verify` on that device"
        else:
            state = f"{'every check held' if parity.passed else 'CHECKS FAILED'}: {parity.file}"
        size = sum(entry.num_bytes for entry in entries.values())
        found[place.name] = (
            f"{engines.backend} {engines.backend_version}, {size / 1e6:,.1f} MB; {state}"
        )
    return found


def _graphs(manifest: "Manifest") -> dict[str, dict[str, Any]]:
    """Return each graph's file, number of tensors and cost."""
    import msgspec

    return {
        name: {
            "file": entry.file,
            "inputs": len(entry.inputs),
            "outputs": len(entry.outputs),
            "bytes": manifest.files[entry.file].num_bytes,
            "sha256": manifest.files[entry.file].sha256,
            "cost": msgspec.to_builtins(entry.cost),
        }
        for name, entry in manifest.graphs.items()
    }


def _cost(cost: "GraphCost") -> str:
    """Tell what one call computes and reads."""
    fixed = f"{cost.weight_bytes / 1e6:,.2f} MB of weights, {cost.flops / 1e9:,.3f} GFLOP"
    if not cost.memory_bytes_per_row:
        return fixed
    return (
        f"{fixed}; a row of memory {cost.memory_bytes_per_row / 1e3:,.1f} kB and "
        f"{cost.flops_per_row / 1e6:,.2f} MFLOP more"
    )


def _memory(manifest: "Manifest") -> list[dict[str, int]]:
    """Return the memory's size by episode length: 1, 10, 100, ..., and where a bucket ends."""
    from memorywam_runtime.bench.bench_sizes import (
        default_frames,
        full_history_bytes,
        memory_bytes,
        memory_rows,
        most_frames,
    )

    most = most_frames(manifest)
    buckets = manifest.memory.gist_buckets if most is not None and most > 1 else ()
    return [
        {
            "frames": frames,
            "rows": memory_rows(manifest, frames),
            "bytes": memory_bytes(manifest, frames),
            "full_history_bytes": full_history_bytes(manifest, frames),
        }
        for frames in sorted({*default_frames(manifest), *buckets})
    ]


def _update_bytes(manifest: "Manifest") -> int:
    """Return what one update writes into memory."""
    from memorywam_runtime.bench.bench_sizes import update_bytes

    return update_bytes(manifest)


def _graph(manifest: "Manifest", name: str) -> Outcome:
    """Tell of one graph's tensors."""
    if name not in manifest.graphs:
        raise InputError(f"no graph '{name}'; this bundle has {', '.join(manifest.graphs)}")
    entry = manifest.graphs[name]
    tensors: list[dict[str, Any]] = [
        {
            "way": way,
            "name": spec.name,
            "shape": spec.shape,
            "dtype": spec.dtype,
            "meaning": spec.meaning,
        }
        for way, specs in (("in", entry.inputs), ("out", entry.outputs))
        for spec in specs
    ]
    return Outcome(
        ok=True,
        headers=("way", "tensor", "shape", "type", "meaning"),
        rows=[
            (t["way"], t["name"], " x ".join(map(str, t["shape"])), t["dtype"], t["meaning"])
            for t in tensors
        ],
        data={"graph": name, "file": entry.file, "tensors": tensors},
        note=f"{entry.file}: {len(entry.inputs)} in, {len(entry.outputs)} out",
    )
