"""An episode that keeps time, turned by hand, a tick at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tests.fakes.live import (
    CAMERAS,
    LIMITS,
    MS,
    NUM_JOINTS,
    TICK_MS,
    BenchBody,
    BenchCamera,
    BenchPolicy,
    HandWorker,
    small_contract,
)

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.live.chunk_gate import ChunkGate
from memorywam_robot.live.chunks import ActionQueue
from memorywam_robot.live.delay import ExpectedDelay
from memorywam_robot.live.frame_grid import FrameGrid
from memorywam_robot.live.grid_rules import GridRules, grid_shape_from_contract
from memorywam_robot.live.live_episode import LiveEpisode
from memorywam_robot.live.live_parts import Parts
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import load_from_measured
from memorywam_robot.live.tasks import Act, Event, Remember, Task
from memorywam_robot.live.virtual_worker import Latency, VirtualWorker
from memorywam_robot.live.worker import Worker
from memorywam_robot.loop import EpisodeStart
from memorywam_runtime.contract import InferenceContract

STEP_MS = 100
AMPLE = LiveRules(starved_ms=60_000)


class Bench:
    """An episode that is turned by hand, a tick at a time."""

    def __init__(
        self,
        *,
        contract: InferenceContract | None = None,
        rules: LiveRules | None = None,
        grid_rules: GridRules | None = None,
        policy: Any = None,
        latency: Latency | None = None,
        remember_ms: float = 40.0,
        act_ms: float = 160.0,
        num_steps: int = 96,
        cameras_run: bool = True,
        listeners: Sequence[Any] = (),
        hooks: Mapping[str, Any] | None = None,
        seed: int = 5,
        opens: bool = True,
        limit_rules: LimitRules | None = None,
        instruction: str = "go",
        frames_per_chunk: int = 0,
    ) -> None:
        """Build it; with a policy the work takes `latency`, without one nothing is ever done."""
        self.contract = contract or small_contract()
        self.rules = rules or LiveRules()
        self.cameras = [BenchCamera(name) for name in CAMERAS]
        self.cameras_run = cameras_run
        self.body = BenchBody()
        self.hand = HandWorker()
        self.now_ns = 10**9
        self.body.now_ns = self.now_ns
        self.policy = policy
        self.virtual: VirtualWorker | None = None
        if policy is not None:
            made = Worker(policy, now_ns=lambda: self.now_ns, **(hooks or {}))
            self.worker = made
            if latency is None:
                latency = Latency(remember_ms=remember_ms, step_ms=act_ms / policy.num_steps)
            self.virtual = VirtualWorker(made, latency)
        self.tasks: list[Task] = []
        self.given = _Told(self)
        self.load = load_from_measured(self.contract, remember_ms=remember_ms, act_ms=act_ms)
        if frames_per_chunk:
            executed = frames_per_chunk * self.load.steps_per_frame
            self.load = replace(self.load, num_executed=executed)
        self.grid = FrameGrid(grid_shape_from_contract(self.contract), grid_rules)
        self.queue = ActionQueue(
            NUM_JOINTS, seam=self.rules.seam, num_blended=self.rules.num_blended
        )
        self.begun_ns: int | None = None
        parts = Parts(
            contract=self.contract, cameras=self.cameras, body=self.body, worker=self.given,
            grid=self.grid, gate=ChunkGate(LIMITS, self.contract.actions.horizon, limit_rules),
            queue=self.queue, load=self.load, delay=ExpectedDelay(self.load), rules=self.rules,
            listeners=listeners, begun=self._begin,
        )  # fmt: skip
        self.begun: list[int] = []
        start = EpisodeStart(seed=seed, instruction=instruction, num_steps=num_steps)
        self.episode = LiveEpisode(parts, start, self.now_ns)
        if opens and policy is not None:
            self.until(lambda: self.episode.phase != "gate", most=100)

    def _begin(self) -> None:
        self.begun.append(self.now_ns)

    @property
    def since_ms(self) -> float:
        """Since the gate opened."""
        return (self.now_ns - self.begun[0]) / MS

    def tick(self, num_periods: int = 1, *, images: bool | None = None) -> bool:
        """Let time go on, frames arrive, work be done, and the loop have its turn."""
        for _ in range(num_periods):
            self.now_ns += TICK_MS * MS
            if self.cameras_run if images is None else images:
                for camera in self.cameras:
                    camera.give(self.now_ns)
        if self.virtual is not None:
            self.virtual.advance(self.now_ns)
        self.body.now_ns = self.now_ns
        return self.episode.tick(self.now_ns)

    def until(self, is_so: Callable[[], bool], most: int = 2000) -> None:
        """Tick until something is so; fail if it never is."""
        for _ in range(most):
            if is_so():
                return
            self.tick()
        raise AssertionError(f"never so: {self.episode.phase} {self.episode.counts.reasons}")

    def run(self) -> None:
        """Go on to the end, and until memory stands still."""
        self.until(lambda: self.episode.phase == "ended")
        self.finish()

    def finish(self) -> None:
        """Let the worker come to the end."""
        for _ in range(200):
            if self.episode.has_finished():
                return
            self.now_ns += TICK_MS * MS
            if self.virtual is not None:
                self.virtual.advance(self.now_ns)
        raise AssertionError("never finished")

    def of(self, kind: Any) -> list[Any]:
        """Return the tasks of a kind that the loop has given."""
        return [task for task in self.tasks if isinstance(task, kind)]

    @property
    def remembered(self) -> list[Remember]:
        """Frames that the loop gave to memory."""
        return self.of(Remember)

    @property
    def asked(self) -> list[Act]:
        """Chunks that the loop asked for."""
        return self.of(Act)


class _Told:
    """Keeps tasks on their way to the worker; tells what it and the hand have to tell."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def put(self, task: Task) -> None:
        self._bench.tasks.append(task)
        if self._bench.virtual is not None:
            self._bench.virtual.put(task)

    def events(self) -> list[Event]:
        told = [] if self._bench.virtual is None else self._bench.virtual.events()
        return told + self._bench.hand.events()


def ramp(frame, horizon=32) -> Any:
    """What to do after a frame: action k of the episode is 0.001 k, whichever chunk has it."""
    return np.repeat(0.001 * (np.arange(horizon) + 16 * frame + 1)[:, None], NUM_JOINTS, axis=1)


def bench(policy=None, **words):
    """Make one; by default with a policy that goes on and on."""
    return Bench(policy=policy or BenchPolicy(ramp), **words)


def kinds(tasks):
    """Name the kinds of tasks."""
    return [type(task).__name__ for task in tasks]


def dark(rig, start_ms, end_ms):
    """Go on to the end of a darkness of all cameras, since the gate."""
    while rig.since_ms < end_ms and rig.episode.phase == "running":
        rig.tick(images=not start_ms <= rig.since_ms + TICK_MS < end_ms)
