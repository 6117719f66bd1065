"""The loop of one episode: observe, remember, act, execute, tell; one after the other."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from memorywam_robot.robot import Robot, Verdict
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.observation import Observation

__all__ = ["ChunkPolicy", "EpisodeResult", "EpisodeStart", "Subscriber", "observe", "run_episode"]


class ChunkPolicy(Protocol):
    """What the loop asks of a policy; `memorywam_runtime.Policy` is one."""

    contract: InferenceContract

    def reset(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        """Start an episode."""
        ...

    def expected_steps(self) -> tuple[int, ...]:
        """Return the steps at which the next group of observations is taken."""
        ...

    def see(self, observation: Observation) -> None:
        """Take an observation of the next group that is not its last, as it is made."""
        ...

    def remember(
        self,
        observations: Sequence[Observation],
        executed: NDArray[np.floating] | None = None,
    ) -> int:
        """Write one frame to memory, of the observations not yet seen; return its number.

        `executed` are the actions [horizon, action_dim] since the frame before, for a contract that
        remembers them.
        """
        ...

    def act(self, state: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the chunk [horizon, action_dim] to execute next."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeStart:
    """What is known before the first step."""

    seed: int
    instruction: str
    num_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """What happened."""

    seed: int
    instruction: str
    success: bool | None
    """None where nobody watches."""
    remark: str
    num_steps: int
    num_frames: int
    """Latent frames remembered."""
    seconds: float
    """From the first observation to the last step."""
    executed: NDArray[np.float64]
    """Actions [num_steps, action_dim] in the robot's units."""
    remember_ms: tuple[float, ...]
    """By frame: writing it to memory."""
    act_ms: tuple[float, ...]
    """By frame: making the chunk after it."""


class Subscriber(Protocol):
    """Who is told what happens; an error it raises ends the episode with the arms held."""

    def on_episode_start(self, start: EpisodeStart) -> None:
        """Hear of an episode whose robot stands ready."""
        ...

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Hear of an observation that the policy is given next; nobody writes into it any more.

        Args:
            observation: As the policy gets it.
            captured_ns: When the cameras were asked for it; monotonic.
        """
        ...

    def on_frame(self, frame: int, steps: Sequence[int]) -> None:
        """Hear of a frame that memory has taken, made of the observations of these steps."""
        ...

    def on_chunk(self, state: NDArray[np.floating], chunk: NDArray[np.float64]) -> None:
        """Hear of a chunk [horizon, action_dim] that was made for this joint state [state_dim]."""
        ...

    def on_step(self, step: int, action: NDArray[np.floating]) -> None:
        """Hear of an action [action_dim] that has just been executed as this step, from 1."""
        ...

    def on_episode_end(self, result: EpisodeResult) -> None:
        """Hear how it went; not called after an error."""
        ...


def observe(robot: Robot, step: int) -> Observation:
    """Return what a robot sees and where its joints are after this step."""
    return Observation(images=robot.cameras.images(), state=robot.arm.state(), step=step)


def run_episode(
    policy: ChunkPolicy,
    robot: Robot,
    *,
    seed: int = 0,
    instruction: str | None = None,
    subscribers: Sequence[Subscriber] = (),
) -> EpisodeResult:
    """Run one episode to its last step; whatever happens, the arms are held at the end.

    Args:
        policy: Reset here, with room for the whole episode asked for in advance.
        robot: Started here.
        seed: Of the robot's episode and of the policy's noise.
        instruction: Another one than the robot's job has.
        subscribers: Told in this order.

    Raises:
        InputError: the instruction is unknown, or the robot and the policy do not fit.
        CapacityError: memory cannot hold the whole episode; nothing has moved.
        MemorywamError: the policy gave actions that are not finite.
    """
    job = robot.start(seed)
    text = job.instruction if instruction is None else instruction
    policy.reset(text, seed=seed, max_steps=job.num_steps)
    start = EpisodeStart(seed=seed, instruction=text, num_steps=job.num_steps)
    for subscriber in subscribers:
        subscriber.on_episode_start(start)
    episode = _Episode(policy, robot, start, subscribers)
    try:
        episode.run()
    finally:
        robot.arm.hold()
    result = episode.result(robot.verdict())
    for subscriber in subscribers:
        subscriber.on_episode_end(result)
    return result


class _Episode:
    """One episode under way."""

    def __init__(
        self,
        policy: ChunkPolicy,
        robot: Robot,
        start: EpisodeStart,
        subscribers: Sequence[Subscriber],
    ) -> None:
        self._policy = policy
        self._robot = robot
        self._start = start
        self._subscribers = subscribers
        self._step = 0
        self._observed: list[int] = []
        self._executed: list[NDArray[np.float64]] = []
        self._remember_ms: list[float] = []
        self._act_ms: list[float] = []
        self._started_ns = time.monotonic_ns()

    def run(self) -> None:
        """Go on until the last step."""
        policy, arm = self._policy, self._robot.arm
        executed: NDArray[np.float64] | None = None
        group = [self._observe()]
        while self._step < self._start.num_steps:
            with _span(self._remember_ms):
                frame = policy.remember(group, executed)
            for subscriber in self._subscribers:
                subscriber.on_frame(frame, self._observed)
            self._observed = []
            state = arm.state()
            with _span(self._act_ms):
                chunk = policy.act(state)
            for subscriber in self._subscribers:
                subscriber.on_chunk(state, chunk)
            before = self._step
            group = self._execute(chunk)
            if policy.contract.conventions.action_history:
                executed = np.array(self._executed[before:])

    def result(self, verdict: Verdict) -> EpisodeResult:
        """Return what happened."""
        return EpisodeResult(
            seed=self._start.seed,
            instruction=self._start.instruction,
            success=verdict.success,
            remark=verdict.remark,
            num_steps=self._step,
            num_frames=len(self._remember_ms),
            seconds=(time.monotonic_ns() - self._started_ns) / 1e9,
            executed=np.array(self._executed),
            remember_ms=tuple(self._remember_ms),
            act_ms=tuple(self._act_ms),
        )

    def _execute(self, chunk: NDArray[np.float64]) -> list[Observation]:
        """Execute a chunk until the next frame is complete; return its last observation.

        Those before it the policy sees as they are made: what it does with them is done by then.
        """
        due = self._policy.expected_steps()
        count = due[-1] - self._step
        if count > len(chunk):
            raise InputError(
                f"a chunk has {len(chunk)} actions; the next frame is complete only after {count}: "
                "this loop needs a contract whose horizon reaches from frame to frame"
            )
        is_last = due[-1] >= self._start.num_steps
        group: list[Observation] = []
        for action in chunk[: min(count, self._start.num_steps - self._step)]:
            self._robot.arm.command(action)
            # What was sent, where an arm says so: limits of its own may have changed it.
            sent = getattr(self._robot.arm, "sent", None)
            done = action if sent is None else np.array(sent, np.float64)
            self._step += 1
            self._executed.append(done)
            for subscriber in self._subscribers:
                subscriber.on_step(self._step, done)
            if self._step in due and not is_last:  # nothing acts on what is seen last
                observation = self._observe()
                if self._step == due[-1]:
                    group.append(observation)
                else:
                    self._policy.see(observation)
        return group

    def _observe(self) -> Observation:
        """Observe now, and tell of it before the policy gets it: it may be what breaks it."""
        captured_ns = time.monotonic_ns()
        observation = observe(self._robot, self._step)
        for subscriber in self._subscribers:
            subscriber.on_observation(observation, captured_ns)
        self._observed.append(self._step)
        return observation


@contextlib.contextmanager
def _span(spans_ms: list[float]) -> Iterator[None]:
    """Note how long the body took."""
    started_ns = time.monotonic_ns()
    yield
    spans_ms.append((time.monotonic_ns() - started_ns) / 1e6)
