"""Finding: one thing that the doctor looked at, with its fix; and what it was asked for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["GROUP", "Asked", "Finding", "Status"]

GROUP = "memorywam.findings"
"""The entry-point group by which other packages add to the doctor: each entry is a function from
`Asked` to findings."""

Status = Literal["ok", "warn", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    part: str
    status: Status
    """`missing` keeps the program from working, `warn` only a part that was not asked for."""
    found: str
    fix: str = ""
    """One line: what to do; empty where nothing needs doing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the robot will need, so that its absence counts."""

    bundle: str | None = None
    robot: str = ""
    cameras: tuple[str, ...] = ()
    measures_budget: bool = False
    """Run the bundle to see whether this device is fast enough."""
    backend: str = "ort"
    root: Path = Path("/")
    """Where the system's own files are: /etc, /proc, /sys and /var."""
