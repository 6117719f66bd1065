"""Whether a build fits this machine, in numbers, before it has run for an hour."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memorywam_runtime.free_memory import available_bytes

__all__ = ["Preflight", "preflight"]

_HOST_BASE_BYTES = 600_000_000
"""Of the process and the compiler's libraries."""
_HOST_PER_WEIGHT = 3.1
"""Measured with TensorRT-RTX 1.7.1: 3.62 GB of float16 weights took 11.2 GB."""
_DISK_BASE_BYTES = 8_000_000
"""Of code in one engine; 1.4 to 5.4 MB on the tiny model."""
_DISK_PER_WEIGHT = 1.02
"""3.65 GB of engine for 3.62 GB of weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What a build takes and what there is, bytes."""

    host_bytes: int
    """Memory of this machine at the largest graph; graphs are built one after the other."""
    host_free_bytes: int
    disk_bytes: int
    """Of the engines to build; old ones stay until all are built."""
    disk_free_bytes: int
    workspace_bytes: int | None

    @property
    def lacks(self) -> list[str]:
        """Return what does not fit, each a sentence."""
        found = []
        if self.host_bytes > self.host_free_bytes:
            found.append(
                f"the build takes about {_size(self.host_bytes)} of memory, and "
                f"{_size(self.host_free_bytes)} are free"
            )
        if self.disk_bytes > self.disk_free_bytes:
            found.append(
                f"the engines take about {_size(self.disk_bytes)} on disk, and "
                f"{_size(self.disk_free_bytes)} are free"
            )
        return found

    @property
    def text(self) -> str:
        """Return all of it as one sentence."""
        limit = "" if self.workspace_bytes is None else f"; workspace {_size(self.workspace_bytes)}"
        return (
            f"memory about {_size(self.host_bytes)} of {_size(self.host_free_bytes)} free; disk "
            f"about {_size(self.disk_bytes)} of {_size(self.disk_free_bytes)} free{limit}"
        )


def preflight(
    weight_bytes: Sequence[int], directory: Path, workspace_bytes: int | None
) -> Preflight:
    """Estimate what building these graphs takes.

    Args:
        weight_bytes: Of each graph still to be built.
        directory: Where the engines go; it need not exist yet.
        workspace_bytes: Limit of the device memory that one kernel may use aside.
    """
    place = next(parent for parent in (directory, *directory.absolute().parents) if parent.is_dir())
    return Preflight(
        host_bytes=max(
            (int(_HOST_BASE_BYTES + _HOST_PER_WEIGHT * n) for n in weight_bytes), default=0
        ),
        host_free_bytes=available_bytes(),
        disk_bytes=sum(int(_DISK_BASE_BYTES + _DISK_PER_WEIGHT * n) for n in weight_bytes),
        disk_free_bytes=shutil.disk_usage(place).free,
        workspace_bytes=workspace_bytes,
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"
