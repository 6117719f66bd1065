"""How much host memory can be taken, and whether a bundle's memory fits."""

import os
from pathlib import Path

from memorywam_runtime.errors import CapacityError

__all__ = ["available_bytes", "check_room"]

_ROOT = Path("/")
_MEMINFO = "proc/meminfo"
_CONTAINER = "sys/fs/cgroup"


def available_bytes(root: Path = _ROOT) -> int:
    """Return the memory that can be taken without swapping, bytes: of system and container.

    Args:
        root: Where /proc and /sys are.
    """
    return min([_of_system(root), *_of_container(root)])


def check_room(num_bytes: int, max_frames: int) -> None:
    """Refuse memory that this machine does not have, before any of it is taken.

    Args:
        num_bytes: All that the tensors of memory take.
        max_frames: That they hold.

    Raises:
        CapacityError: with both sizes.
    """
    available = available_bytes()
    if num_bytes > available:
        raise CapacityError(
            f"memory of {max_frames} frames takes {num_bytes / 1e9:,.2f} GB; "
            f"{available / 1e9:,.2f} GB are free: free memory, or export the checkpoint again "
            "with fewer --max-frames"
        )


def _of_system(root: Path) -> int:
    try:
        lines = (root / _MEMINFO).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_container(root: Path) -> list[int]:
    """Return what a container's limit leaves; nothing where there is none."""
    try:
        limit, used = (
            int((root / _CONTAINER / name).read_text(encoding="utf-8"))
            for name in ("memory.max", "memory.current")
        )
    except (OSError, ValueError):  # no such files, or no limit: "max"
        return []
    return [max(0, limit - used)]
