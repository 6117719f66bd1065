"""How an episode that keeps time went."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.live.live_counts import LiveCounts
from memorywam_robot.live.live_episode import LiveEpisode
from memorywam_robot.live.pace import Pace
from memorywam_robot.loop import EpisodeResult
from memorywam_robot.robot import Verdict

__all__ = ["LiveResult", "dropped_gists", "result_of"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveResult:
    """What happened."""

    seed: int
    instruction: str
    success: bool | None
    """None where nobody watches."""
    remark: str
    aborted: str
    """Why it ended early; empty if it did not."""
    seconds: float
    rest_ms: float
    """From its end to arms at rest, which they hold."""
    executed: NDArray[np.float64]
    """Targets [num_steps, action_dim] as the guard sent them, by environment step."""
    counts: LiveCounts
    num_dropped_gists: int = 0
    """Because memory was full."""
    kept_hz: float | None = None
    """Ticks a second, measured; None in simulated time."""
    worst_tick_ms: float | None = None
    """Longest from one tick to the next; None in simulated time."""

    @property
    def num_steps(self) -> int:
        """Environment steps."""
        return len(self.executed)

    def plain(self) -> EpisodeResult:
        """Return it as a loop without a clock tells it."""
        counts = self.counts
        return EpisodeResult(
            seed=self.seed,
            instruction=self.instruction,
            success=self.success,
            remark=self.remark,
            num_steps=self.num_steps,
            num_frames=counts.frames,
            seconds=self.seconds,
            executed=self.executed,
            remember_ms=tuple(counts.remember_ms),
            act_ms=tuple(counts.act_ms),
        )

    def report(self) -> dict[str, Any]:
        """Return it for machines."""
        return {
            "seed": self.seed,
            "instruction": self.instruction,
            "success": self.success,
            "remark": self.remark,
            "aborted": self.aborted,
            "num_steps": self.num_steps,
            "num_frames": self.counts.frames,
            "num_dropped_gists": self.num_dropped_gists,
            "seconds": self.seconds,
            "rest_ms": self.rest_ms,
            "kept_hz": self.kept_hz,
            "worst_tick_ms": self.worst_tick_ms,
            "executed": self.executed,
        } | self.counts.report()


def result_of(
    episode: LiveEpisode,
    verdict: Verdict,
    seconds: float,
    rest_ms: float,
    pace: Pace | None = None,
    *,
    num_dropped_gists: int = 0,
) -> LiveResult:
    """Return how an episode went that has ended; its pace is none where time is simulated."""
    remark = verdict.remark
    if episode.aborted:
        remark = f"aborted: {episode.aborted}" + (f"; {remark}" if remark else "")
    num_joints = episode.parts.contract.actions.action_dim
    return LiveResult(
        seed=episode.start.seed,
        instruction=episode.start.instruction,
        success=verdict.success,
        remark=remark,
        aborted=episode.aborted,
        seconds=seconds,
        rest_ms=rest_ms,
        executed=np.array(episode.executed).reshape(-1, num_joints),
        counts=episode.counts,
        num_dropped_gists=num_dropped_gists,
        kept_hz=None if pace is None else pace.kept_hz,
        worst_tick_ms=None if pace is None else pace.worst_ms,
    )


def dropped_gists(policy: object) -> int:
    """Return the gists that a full memory dropped since it was empty; 0 for one without any."""
    session = getattr(policy, "session", None)
    return 0 if session is None else int(session.memory.num_dropped_gists)
