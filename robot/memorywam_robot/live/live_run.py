"""Episodes in real time: the loop's thread keeps time, the worker's thread computes."""

import contextlib
import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from memorywam_robot.arms.real_time import lower_priority, raise_priority, sharpen_timers
from memorywam_robot.arms.tick_clock import TickClock
from memorywam_robot.live.camera_rates import check_rates, running_rates
from memorywam_robot.live.chunk_gate import ChunkGate
from memorywam_robot.live.chunks import ActionQueue
from memorywam_robot.live.delay import ExpectedDelay
from memorywam_robot.live.frame_grid import FrameGrid
from memorywam_robot.live.grid_rules import GridRules, grid_shape_from_contract
from memorywam_robot.live.instruction_changes import (
    Changes,
    InstructionChange,
    check_changes,
)
from memorywam_robot.live.live_episode import LiveEpisode
from memorywam_robot.live.live_parts import Listener, Parts
from memorywam_robot.live.live_result import LiveResult, dropped_gists, result_of
from memorywam_robot.live.live_robot import LiveRobot
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import Load
from memorywam_robot.live.pace import Pace
from memorywam_robot.live.shadow import SHADOW_RULES
from memorywam_robot.live.tellers import Teller, hooks_of
from memorywam_robot.live.worker import Worker, WorkerThread
from memorywam_robot.loop import EpisodeStart
from memorywam_runtime.errors import DeviceError, InputError
from memorywam_runtime.policy import Policy

__all__ = ["LiveRun", "Timekeeping"]

_SWITCH_S = 0.0005
"""A thread that computes gives way after this; Python's own 5 ms is a quarter of a tick."""
_REST_S = 2.0
_FINISH_S = 10.0
"""For the worker to come to the end of an episode, the arms held."""
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timekeeping:
    """How late ticks began."""

    period_ms: float
    num_ticks: int
    num_skipped: int
    """Periods that were over whole before their tick could begin."""
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float

    def report(self) -> dict[str, Any]:
        """Return it for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


class LiveRun:
    """One policy on one robot, episode after episode."""

    def __init__(
        self,
        policy: Policy,
        robot: LiveRobot,
        *,
        load: Load,
        rules: LiveRules | None = None,
        grid_rules: GridRules | None = None,
        tellers: Sequence[Teller] = (),
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Start the worker's thread.

        Args:
            policy: Nobody else calls it until `close`.
            robot: Nobody else moves it.
            load: The cycle to keep.
            rules: Of the loop.
            grid_rules: Of the memory clock.
            tellers: Told of everything.
            listeners: Told, in the loop's thread, of observations and steps.

        Raises:
            InputError: a camera is too slow for the memory clock.
        """
        self.policy, self.robot, self.load = policy, robot, load
        self.rules = rules or LiveRules()
        self._tellers = tellers
        self._listeners = [*listeners, *tellers]
        self._grid = FrameGrid(grid_shape_from_contract(policy.contract), grid_rules)
        check_rates(self._grid.shape, running_rates(robot.cameras, self._grid.rules.camera_hz))
        self._thread = WorkerThread(Worker(policy, **hooks_of(tellers)))
        self._clock = TickClock(round(1e9 / self.rules.tick_hz))
        self._delay = ExpectedDelay(load)  # a device that grows slow stays so
        self._stopped_by = 0

    @property
    def timekeeping(self) -> Timekeeping:
        """How late ticks began, over all episodes."""
        clock = self._clock
        return Timekeeping(
            period_ms=1e3 / self.rules.tick_hz,
            num_ticks=clock.num_ticks,
            num_skipped=clock.num_skipped,
            late_p50_ms=clock.late_p50_ns / 1e6,
            late_p99_ms=clock.late_p99_ns / 1e6,
            late_max_ms=clock.late_max_ns / 1e6,
        )

    @property
    def stopped_by(self) -> int:
        """The signal by which somebody asked this process to end; 0 if nobody did."""
        return self._stopped_by

    def episodes(
        self,
        seeds: Sequence[int],
        *,
        instruction: str | None = None,
        changes: Sequence[InstructionChange] = (),
        told: Callable[[int], None] = lambda _: None,
    ) -> list[LiveResult]:
        """Run one episode a seed; an interrupt ends the one under way, with the arms held.

        The one in which the worker's thread dies is the last.

        Args:
            seeds: Of the robot's episodes and of the policy's noise.
            instruction: Another one than the robot's job has.
            changes: Other instructions on the way of each, in their order.
            told: Called with the number of episodes done.

        Raises:
            DeviceError: the robot does not start, or the worker hangs, or died before.
            InputError: the robot and the policy do not fit, or a change after an episode's end.
        """
        if ending := self._thread.ending:
            raise DeviceError(
                f"the worker's thread ended: {ending}; expected one that turns: make another run"
            )
        results: list[LiveResult] = []
        with self._timely(), self._interruptible():
            for done, seed in enumerate(seeds):
                told(done)
                if self._stopped_by:
                    break
                results.append(self._episode(seed, instruction, changes))
                if self._thread.ending:
                    break
        return results

    def close(self) -> None:
        """End the worker's thread, if it does not hang."""
        self._thread.close()

    def _episode(
        self, seed: int, instruction: str | None, changes: Sequence[InstructionChange]
    ) -> LiveResult:
        job, coming = self.robot.start(seed), Changes(changes)
        try:
            check_changes(changes, job.num_steps)
        except InputError:
            self.robot.body.stop("an instruction after the episode's end")
            raise
        start = EpisodeStart(
            seed=seed, instruction=instruction or job.instruction, num_steps=job.num_steps
        )
        begun_ns = time.monotonic_ns()
        pace = Pace(self._clock)
        episode = LiveEpisode(self._parts(), start, begun_ns)
        try:
            while episode.tick(pace.wait()):
                if self._stopped_by:
                    episode.abort("interrupted")
                elif ending := self._thread.ending:
                    episode.lose_worker(ending)
                else:
                    coming.make(episode)
        except BaseException as error:
            # Without commands the arms would brake too, but only when they are overdue.
            episode.abort(f"the loop failed: {type(error).__name__}")
            raise
        ended_ns = time.monotonic_ns()
        seconds = (ended_ns - begun_ns) / 1e9
        deadline_s = time.monotonic() + _FINISH_S
        while not episode.has_finished():
            if ending := self._thread.ending:
                episode.lose_worker(ending)
                break
            if time.monotonic() > deadline_s:
                raise DeviceError(
                    f"the policy did not come to an end within {_FINISH_S:g} s; the arms are "
                    f"{self.robot.body.mode}: its backend hangs, start again"
                )
            time.sleep(0.002)
        rest_ms = self._rested_ms(ended_ns)
        result = result_of(
            episode,
            self.robot.verdict(),
            seconds,
            rest_ms,
            pace,
            num_dropped_gists=dropped_gists(self.policy),
        )
        for teller in self._tellers:
            teller.end(result)
        return result

    def _rested_ms(self, ended_ns: int) -> float:
        """Wait until the arms are at rest; return how long after the end they were."""
        arm = self.robot.arm
        arm.wait_for("holding", _REST_S)
        return max(0.0, (arm.status().rested_ns - ended_ns) / 1e6)

    def _parts(self) -> Parts:
        contract, rules, last = self.policy.contract, self.rules, self._grid
        # No epoch comes twice, so that what an old episode still tells is never taken for a new's.
        self._grid = FrameGrid(last.shape, last.rules, last.epoch)
        return Parts(
            contract=contract,
            cameras=self.robot.cameras,
            body=self.robot.body,
            worker=self._thread,
            grid=self._grid,
            gate=ChunkGate(
                self.robot.limits,
                contract.actions.horizon,
                SHADOW_RULES if rules.is_shadow else None,
            ),
            queue=ActionQueue(
                contract.actions.action_dim, seam=rules.seam, num_blended=rules.num_blended
            ),
            load=self.load,
            delay=self._delay,
            rules=rules,
            listeners=self._listeners,
            signal=self.robot.signal,
            begun=self.robot.begun,
        )

    @contextlib.contextmanager
    def _timely(self) -> Iterator[None]:
        """Let this process keep time: exact timers, no garbage search, threads that give way."""
        sharpen_timers()
        raise_priority()  # of this thread alone: those that compute were made before
        switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            yield
        finally:
            lower_priority()
            gc.enable()
            gc.unfreeze()
            sys.setswitchinterval(switch_s)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let an interrupt end the episode, and not the process in the middle of a tick."""

        def note(number: int, frame: FrameType | None) -> None:
            self._stopped_by = number

        try:
            before = {one: signal.signal(one, note) for one in _STOPPING}
        except ValueError:  # not the main thread: signals are another's
            yield
            return
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
