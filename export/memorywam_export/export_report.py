"""What the verb export tells: the graphs that it wrote."""

import resource
from collections.abc import Sequence
from dataclasses import asdict

import msgspec

from memorywam_export.bundles.bundle import PRECISIONS
from memorywam_export.eager.effects import Effect, rewrite_effects
from memorywam_export.graphs.rewrites import REWRITES, rewrites_of_manifest
from memorywam_export.ladder.range_scan import SiteRange
from memorywam_runtime.manifest import GraphEntry, Manifest
from memorywam_runtime.report import Outcome

__all__ = ["exported_outcome"]


def exported_outcome(
    manifest: Manifest, out: str, seconds: float, ranges: Sequence[SiteRange] | str
) -> Outcome:
    """Tell what an export wrote, and what its rewrites took out.

    Args:
        manifest: Of the bundle.
        out: Where it is.
        seconds: The export's duration.
        ranges: What the range scan found, the largest first, or why there was none.
    """
    graphs = {
        name: {
            "inputs": len(entry.inputs),
            "outputs": len(entry.outputs),
            "bytes": manifest.files[entry.file].num_bytes,
            "cost": None if entry.cost is None else msgspec.to_builtins(entry.cost),
        }
        for name, entry in manifest.graphs.items()
    }
    effects = rewrite_effects(
        manifest.contract,
        PRECISIONS[manifest.precision],
        manifest.cache_write,
        rewrites_of_manifest(manifest),
    )
    off = [name for name in REWRITES if name not in manifest.rewrites]
    total = sum(entry.num_bytes for entry in manifest.files.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return Outcome(
        ok=True,
        headers=("part", "name", "in", "out", "weights MB", "GFLOP", "what"),
        rows=[
            *(_graph_row(name, entry) for name, entry in manifest.graphs.items()),
            *(_effect_row(effect) for effect in effects),
            *(("rewrite", name, "", "", "", "", "off") for name in off),
            _ranges_row(ranges),
        ],
        data={
            "bundle": out,
            "contract_hash": manifest.contract_hash,
            "precision": manifest.precision,
            "opset": manifest.opset,
            "graphs": graphs,
            "rewrites": manifest.rewrites,
            "effects": [asdict(effect) for effect in effects],
            "range_scan": ranges if isinstance(ranges, str) else [asdict(r) for r in ranges],
            "prompts": [prompt.text for prompt in manifest.prompts],
            "bytes": total,
            "seconds": seconds,
            "peak_memory_bytes": peak,
        },
        note=(
            f"{out}: contract {manifest.contract_hash[:12]}, {total / 1e6:,.1f} MB with weights, "
            f"{seconds:.1f} s, peak memory {peak / 1e6:,.0f} MB\n{_next(manifest, out)}"
        ),
    )


def _next(manifest: Manifest, out: str) -> str:
    """Say what the bundle lacks."""
    texts = ", ".join(repr(prompt.text) for prompt in manifest.prompts)
    has = (
        f"instructions: {texts}"
        if texts
        else (f"no instruction yet: `memorywam prompt {out} --add TEXT` adds one")
    )
    return (
        f"{has}\nnot verified yet: `memorywam verify {out} --checkpoint CHECKPOINT`, with the "
        "options that named its parts here"
    )


def _graph_row(name: str, entry: GraphEntry) -> tuple[object, ...]:
    """Return a graph's line: its tensors, and the cost of one call."""
    counts = (len(entry.inputs), len(entry.outputs))
    if entry.cost is None:
        return ("graph", name, *counts, "", "", "")
    cost = entry.cost
    per_row = ""
    if cost.memory_bytes_per_row:
        per_row = (
            f"a row of memory: {cost.memory_bytes_per_row / 1e3:,.1f} kB, "
            f"{cost.flops_per_row / 1e6:,.2f} MFLOP"
        )
    figures = (f"{cost.weight_bytes / 1e6:,.2f}", f"{cost.flops / 1e9:,.3f}")
    return ("graph", name, *counts, *figures, per_row)


def _effect_row(effect: Effect) -> tuple[object, ...]:
    """Return a rewrite's line: what one call of a graph no longer has."""
    figures = (f"{-effect.weight_bytes / 1e6:,.2f}", f"{-effect.flops / 1e9:,.3f}")
    return ("rewrite", effect.rewrite, "", "", *figures, f"{effect.graph}: {effect.note}")


def _ranges_row(ranges: Sequence[SiteRange] | str) -> tuple[object, ...]:
    """Return the range scan's line."""
    if isinstance(ranges, str):
        return ("range scan", "none", "", "", "", "", ranges)
    worst = ranges[0]
    what = f"{len(ranges)} sites; largest {worst.max_abs:,.4g} at {worst.site}"
    return ("range scan", "fp16", "", "", "", "", what)
