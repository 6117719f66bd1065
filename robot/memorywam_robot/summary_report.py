"""What a run tells about itself: the fields of `run --json` that its page is made of."""

import msgspec

__all__ = [
    "ArmTimes",
    "EpisodeReport",
    "InstructionReport",
    "LoadReport",
    "MissReport",
    "RunReport",
    "SeamReport",
    "ShadowJoint",
    "ShadowReport",
    "TickTimes",
]


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that are not known are left out: the JSON has more than the page shows."""


class SeamReport(_Part, frozen=True):
    """Where one chunk followed another."""

    step: int
    num_consumed: int = 0
    position: float = 0.0
    """Largest step of a joint there, units."""
    velocity: float = 0.0
    """Largest change of that step: units per environment step."""


class MissReport(_Part, frozen=True):
    """A deadline that was missed."""

    what: str
    step: int
    since_ms: float = 0.0
    """After the newest opening of the gate."""
    num_steps: int = 0


class InstructionReport(_Part, frozen=True):
    """Another instruction in the middle of an episode."""

    step: int
    instruction: str
    keep_memory: bool = False


class ShadowJoint(_Part, frozen=True):
    """One joint's distance, in its unit."""

    name: str
    unit: str
    rms: float = 0.0
    worst: float = 0.0
    worst_step: int = 0


class ShadowReport(_Part, frozen=True):
    """How far the actions were from what somebody else's arms did."""

    num_steps: int = 0
    is_still: bool = False
    joints: tuple[ShadowJoint, ...] = ()


class EpisodeReport(_Part, frozen=True):
    """One episode; what only a loop that keeps time knows is zero or empty for others."""

    seed: int
    instruction: str = ""
    success: bool | None = None
    remark: str = ""
    aborted: str = ""
    num_steps: int = 0
    num_frames: int = 0
    seconds: float = 0.0
    remember_ms: tuple[float, ...] = ()
    act_ms: tuple[float, ...] = ()
    waited_ms: tuple[float, ...] = ()
    chunks: int = 0
    chunks_warned: int = 0
    chunks_dropped: int = 0
    chunks_lost: int = 0
    chunks_replaced: int = 0
    chunks_not_asked: int = 0
    bridged: int = 0
    skipped: int = 0
    delayed_most: int = 0
    """Greatest delay, in steps, with which a chunk was asked for."""
    doubtful: int = 0
    camera_dropped: int = 0
    holds: int = 0
    held_ms: float = 0.0
    limited: int = 0
    memory_quality: float | None = None
    slots_real: int = 0
    slots_filled: int = 0
    slots_missing: int = 0
    worst_skew_ms: float = 0.0
    camera_frames: dict[str, int] = {}
    """By what became of them."""
    kept_hz: float | None = None
    worst_tick_ms: float | None = None
    misses: tuple[MissReport, ...] = ()
    misses_not_kept: int = 0
    seams: tuple[SeamReport, ...] = ()
    reasons: tuple[str, ...] = ()
    instructions: tuple[InstructionReport, ...] = ()
    """Other ones than the first."""
    shadow: ShadowReport | None = None


class TickTimes(_Part, frozen=True):
    """How late the loop's ticks came."""

    period_ms: float
    late_p50_ms: float = 0.0
    late_p99_ms: float = 0.0
    late_max_ms: float = 0.0
    num_ticks: int = 0
    num_skipped: int = 0


class ArmTimes(_Part, frozen=True):
    """The same of the process of the arms."""

    period_ms: float | None = None
    late_p50_ms: float = 0.0
    late_p99_ms: float = 0.0
    late_max_ms: float = 0.0
    num_skipped: int = 0
    mode: str = ""
    reason: str = ""
    counts: dict[str, int] = {}


class Timing(_Part, frozen=True):
    """What is measured in real time only."""

    tick: TickTimes | None = None
    supervisor: ArmTimes | None = None
    cameras: dict[str, dict[str, int]] = {}
    """Counts by camera."""


class LoadReport(_Part, frozen=True):
    """The cycle that the device keeps."""

    remember_ms: float = 0.0
    act_ms: float = 0.0
    step_ms: float = 0.0
    num_delayed: int = 0
    num_executed: int = 0
    num_bridged: int = 0
    share: float = 0.0
    headroom: float | None = None


class RunReport(_Part, frozen=True):
    """One call of `memorywam run`."""

    episodes: tuple[EpisodeReport, ...]
    bundle: str = ""
    robot: str = ""
    backend: str = ""
    contract_hash: str = ""
    loop: str = "sync"
    load: LoadReport | None = None
    timing: Timing = Timing()
    stages_ms: dict[str, dict[str, float]] = {}
    """Percentiles by stage."""

    @property
    def is_async(self) -> bool:
        """Return whether the loop kept time."""
        return self.loop != "sync"
