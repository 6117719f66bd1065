"""A robot for the loop that keeps time, without a process, a device or a world."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.fakes.live import CAMERAS, LIMITS, BenchBody, BenchCamera, BenchPolicy, small_contract

from memorywam_robot.camera import Frame
from memorywam_robot.cameras.shared_signal import SharedSignal
from memorywam_robot.live.live_run import LiveRun
from memorywam_robot.live.load import load_from_measured
from memorywam_robot.robot import Job, Verdict


class NowBody(BenchBody):
    """Arms whose states are of the time at which they are asked for."""

    def state(self, out: NDArray[np.float64]) -> int:
        """Where the joints are, now."""
        self.now_ns = time.monotonic_ns()
        return super().state(out)


class NowCamera(BenchCamera):
    """Has one new frame whenever it is asked."""

    def take(self) -> list[Frame]:
        """Return it."""
        self.give(time.monotonic_ns() - 30_000_000)  # no tick is so late that it is from its future
        return super().take()


class NowArm:
    """A supervisor that holds at once."""

    rested_ns = 0

    def wait_for(self, mode: str, timeout_s: float) -> bool:
        """Return at once."""
        return True

    def status(self) -> "NowArm":
        """Return itself."""
        return self


class NowRobot:
    """A `LiveRobot` of these."""

    def __init__(self, num_steps: int = 4) -> None:
        self.body, self.arm, self.limits = NowBody(), NowArm(), LIMITS
        self.cameras = [NowCamera(name) for name in CAMERAS]
        self.signal: SharedSignal | None = None
        self.num_steps, self.seeds = num_steps, list[int]()

    def start(self, seed: int) -> Job:
        """Keep the seed."""
        self.seeds.append(seed)
        return Job(instruction="go", num_steps=self.num_steps)

    def begun(self) -> None:
        """Do nothing."""

    def verdict(self) -> Verdict:
        """Return no judgement."""
        return Verdict(success=None)

    def close(self) -> None:
        """Do nothing."""


def run_of(policy: BenchPolicy, robot: NowRobot, **words: Any) -> LiveRun:
    """Return a run of a policy that does as it is told."""
    contract = small_contract()
    policy.contract = contract  # type: ignore[attr-defined]
    load = load_from_measured(contract, remember_ms=40, act_ms=100)
    return LiveRun(policy, robot, load=load, **words)  # type: ignore[arg-type]
