"""What the verb export tells: the graphs it wrote, or the contracts that ship."""

import resource

import msgspec

from memorywam_export.presets import PRESETS
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.report import Outcome

__all__ = ["exported_outcome", "presets_outcome"]


def exported_outcome(manifest: Manifest, out: str, seconds: float) -> Outcome:
    """Tell what an export wrote."""
    graphs = {
        name: {
            "inputs": len(entry.inputs),
            "outputs": len(entry.outputs),
            "bytes": manifest.files[entry.file].num_bytes,
        }
        for name, entry in manifest.graphs.items()
    }
    total = sum(entry.num_bytes for entry in manifest.files.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return Outcome(
        ok=True,
        headers=("graph", "inputs", "outputs", "bytes"),
        rows=[(name, *row.values()) for name, row in graphs.items()],
        data={
            "bundle": out,
            "contract_hash": manifest.contract_hash,
            "precision": manifest.precision,
            "opset": manifest.opset,
            "graphs": graphs,
            "prompts": [prompt.text for prompt in manifest.prompts],
            "bytes": total,
            "seconds": seconds,
            "peak_memory_bytes": peak,
        },
        note=(
            f"{out}: contract {manifest.contract_hash[:12]}, {total / 1e6:,.1f} MB with weights, "
            f"{seconds:.1f} s, peak memory {peak / 1e6:,.0f} MB"
        ),
    )


def presets_outcome() -> Outcome:
    """List the contracts that ship."""
    return Outcome(
        ok=True,
        headers=("preset", "hash", "layers", "video", "action", "mosaic", "tokens", "memory"),
        rows=[
            (
                name,
                c.hash[:12],
                c.num_layers,
                f"{c.video.hidden}/{c.video.ffn}",
                f"{c.action.hidden}/{c.action.ffn}",
                f"{c.observations.height} x {c.observations.width}",
                c.num_visual,
                f"{c.memory.num_anchors}+{c.memory.num_recent}, {c.memory.num_gists} gist",
            )
            for name, c in PRESETS.items()
        ],
        data={
            "presets": {
                name: {"hash": c.hash, "contract": msgspec.to_builtins(c)}
                for name, c in PRESETS.items()
            }
        },
        note="use one with --preset NAME, or as random:NAME[:SEED]; --json - prints all fields",
    )
