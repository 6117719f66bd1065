"""What a verification did not look at, in words: checks that were not made cannot fail."""

from collections.abc import Mapping
from typing import Any

from memorywam_export.checkpoints.checkpoint import Checkpoint
from memorywam_runtime.manifest import Manifest

__all__ = ["gaps_of"]

_BUCKET = "gist bucket"


def gaps_of(manifest: Manifest, checkpoint: Checkpoint, data: Mapping[str, Any]) -> list[str]:
    """Return what a reader might take for checked and was not.

    Args:
        manifest: Of the bundle.
        checkpoint: What it was compared with.
        data: The report, with its checks.
    """
    gaps = []
    if unreached := _unreached(data.get("boundaries", {})):
        gaps.append(
            f"{', '.join(unreached)}: {data['frames']} frames do not get there; leave out --frames"
        )
    if "boundaries" in data and not any(c["what"].startswith("planted: ") for c in data["checks"]):
        gaps.append("planted faults: none was planted")
    # Those that were added later were made by the bundle's own graph, which is compared.
    untold = [
        repr(entry.text)
        for entry in manifest.prompts
        if entry.encoder.startswith("with checkpoint") and entry.text not in checkpoint.prompts
    ]
    if untold:
        gaps.append(
            f"the stored keys of {', '.join(untold)}: name the instruction's embedding as for "
            "the export, --text-cache DIR --instruction TEXT"
        )
    return gaps


def _unreached(boundaries: Mapping[str, Any]) -> list[str]:
    """Return the boundaries that the episode did not come past; of gist buckets, the first."""
    names = [name for name in boundaries if not name.startswith(_BUCKET)]
    names += [name for name in boundaries if name.startswith(_BUCKET)][:1]
    return [
        f"{name} (frame {boundaries[name]['frame']})"
        for name in names
        if not boundaries[name]["reached"]
    ]
