"""A bundle's graphs against torch, value by value, down to the first operator that is wrong.

An engine for a device gives nothing out but its outputs; to look inside, it would have to be built
again with other outputs, and be another engine. What a device does wrong and ONNX Runtime does
right is therefore named by `verify --backend` only as far as the graph.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from memorywam_export.bisect.bisect_fault import Bisection
from memorywam_export.bisect.bisect_parts import BundleParts
from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_runtime.bundle import WEIGHTS_FILE, check_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest

__all__ = ["bisect_bundle"]

_ORDER = (
    *("vae_first", "vae_step", "vae_image", "vae_pair", "vae_group", "prompt_kv", "state_kv"),
    *("cache_update", "action_modulation", "action_step", "action_denoise"),
)
"""As numbers flow through an episode."""


def bisect_bundle(
    root: Path,
    checkpoint: Checkpoint,
    *,
    num_frames: int = 8,
    seed: int = 0,
    graphs: Collection[str] = (),
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda doing: None,
) -> Bisection:
    """Return of each graph of a bundle whether it holds, or its first operator that does not.

    Each graph gets the inputs that it would have at the end of a random episode, from torch in
    float64, so that a fault in one graph is not seen in the next.

    Args:
        root: The bundle.
        checkpoint: What it is said to be made from.
        num_frames: Latent frames of the episode.
        seed: Of the episode.
        graphs: Names of those to look at; all by default.
        keep: A folder for the smallest model that shows each fault.
        tell: Called with what is being done.

    Raises:
        InputError: a bundle of another contract, one in bfloat16, or a graph that it has not.
    """
    started_s = time.monotonic()
    manifest = check_bundle(root)
    _refuse(manifest, checkpoint, graphs, num_frames)
    tell("episode in float64")
    parts = BundleParts(root, manifest, checkpoint)
    inputs = parts.inputs(num_frames, seed)
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(root / WEIGHTS_FILE, Path(folder) / WEIGHTS_FILE)
        for graph in sorted(manifest.graphs, key=_ORDER.index):
            if not graphs or graph in graphs:
                tell(graph)
                verdicts.append(parts.verdict(graph, inputs[graph], Path(folder), keep))
    notes = () if parts.is_same_torch else (parts.torch_note,)
    return Bisection(graphs=tuple(verdicts), seconds=time.monotonic() - started_s, notes=notes)


def _refuse(
    manifest: Manifest, checkpoint: Checkpoint, graphs: Collection[str], num_frames: int
) -> None:
    """Refuse what cannot be bisected."""
    if manifest.contract_hash != checkpoint.contract.hash:
        raise InputError(
            f"found a bundle of contract {manifest.contract_hash[:12]}; expected the checkpoint's, "
            f"{checkpoint.contract.hash[:12]}: name the checkpoint that it was exported from"
        )
    if manifest.precision == "bf16":
        raise InputError(
            "found a bundle in bf16, which ONNX Runtime cannot run on the CPU; expected fp32 or "
            "fp16: export the checkpoint with --precision fp32, and bisect that"
        )
    if unknown := sorted(set(graphs) - set(manifest.graphs)):
        raise InputError(
            f"found graph '{unknown[0]}'; expected some of {', '.join(manifest.graphs)}"
        )
    if not 1 <= num_frames <= manifest.memory.max_frames:
        raise InputError(
            f"found {num_frames} frames; expected 1 to {manifest.memory.max_frames}, what the "
            "bundle's memory holds"
        )
