"""What happened in an episode that keeps time: counts, waits and seams."""

from dataclasses import asdict, dataclass, field
from typing import Any

from memorywam_robot.live.chunks import Seam
from memorywam_robot.live.grid_rules import GridCounts
from memorywam_robot.live.instruction_changes import InstructionChange
from memorywam_robot.live.misses import Misses
from memorywam_robot.live.shadow import ShadowDistance

__all__ = ["LiveCounts"]


@dataclass(slots=True, kw_only=True)
class LiveCounts:
    """Counts of one episode."""

    frames: int = 0
    """Latent frames that memory took."""
    chunks: int = 0
    """Chunks that were put in force."""
    chunks_warned: int = 0
    chunks_dropped: int = 0
    """Implausible, or too late for any action."""
    chunks_lost: int = 0
    """Not finite."""
    chunks_replaced: int = 0
    """Given up before they were made: another one was asked for."""
    chunks_not_asked: int = 0
    """Frames after which none was asked for, as memory was behind or the arms were held."""
    doubtful: int = 0
    """Camera frames kept from memory: frozen, black, covered, unsettled."""
    camera_dropped: int = 0
    """Camera frames that were lost before they came here."""
    bridged: int = 0
    """Steps in which the last action stayed in force."""
    skipped: int = 0
    """Steps that were over before their tick came."""
    delayed_last: int = 0
    """d, in steps, with which the newest chunk was asked for."""
    delayed_most: int = 0
    """The greatest one."""
    misses: Misses = field(default_factory=Misses)
    """Deadlines, one by one."""
    holds: int = 0
    held_ms: float = 0.0
    limited: int = 0
    """Targets that a limit changed."""
    remember_ms: list[float] = field(default_factory=list)
    waited_ms: list[float] = field(default_factory=list)
    """By frame: from given to begun; one denoising step at most."""
    act_ms: list[float] = field(default_factory=list)
    seams: list[Seam] = field(default_factory=list)
    grid: GridCounts = field(default_factory=GridCounts)
    reasons: list[str] = field(default_factory=list)
    """Why it held, warned or stopped, in order."""
    reacted_ms: list[float] = field(default_factory=list)
    """When, after the gate opened."""
    instructions: list[InstructionChange] = field(default_factory=list)
    """Other ones than the first."""
    shadow: ShadowDistance | None = None
    """Where somebody else moves the arms."""

    def report(self) -> dict[str, Any]:
        """Return it for machines."""
        names = (
            "frames", "chunks", "chunks_warned", "chunks_dropped", "chunks_lost",
            "chunks_replaced", "chunks_not_asked", "doubtful", "camera_dropped", "bridged",
            "skipped", "delayed_last", "delayed_most", "holds", "held_ms", "limited",
            "remember_ms", "waited_ms", "act_ms", "reasons", "reacted_ms",
        )  # fmt: skip
        grid = self.grid
        return {name: getattr(self, name) for name in names} | {
            "instructions": [asdict(change) for change in self.instructions],
            "shadow": None if self.shadow is None else self.shadow.report(),
            "misses": self.misses.report(),
            "misses_not_kept": self.misses.count - self.misses.num_kept,
            "memory_quality": grid.memory_quality,
            "slots_real": grid.real,
            "slots_filled": grid.filled,
            "slots_missing": grid.missing,
            "camera_frames": {str(fate): count for fate, count in grid.fates.items() if count},
            "worst_skew_ms": grid.worst_skew_ns / 1e6,
            "seams": [
                {
                    "step": seam.step,
                    "num_consumed": seam.num_consumed,
                    "position": seam.position,
                    "velocity": seam.velocity,
                }
                for seam in self.seams
            ],
        }
