"""A loop that keeps time on a bench: cameras, arms and a policy that do as they are told."""

import fcntl
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.bundles import copy_of, edit_manifest

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.camera import CameraState, Frame
from memorywam_robot.live.tasks import Event, Task
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import MemorywamError
from memorywam_runtime.observation import Observation

MS = 1_000_000
TICK_MS = 20
NUM_JOINTS = 14
CAMERAS = ("left_wrist", "right_wrist", "head")
IMAGE = np.zeros((2, 2, 3), np.uint8)
LIMITS = JointLimits(
    lower=np.full(NUM_JOINTS, -9.0),
    upper=np.full(NUM_JOINTS, 9.0),
    velocity=np.ones(NUM_JOINTS),
    acceleration=np.ones(NUM_JOINTS),
    step=np.full(NUM_JOINTS, np.inf),
    is_angle=np.ones(NUM_JOINTS, np.bool_),
)
SENT_OFF = 1 / 1024
"""What the guard on the bench adds to a target: what is sent is never what was asked."""


def small_contract(
    horizon: int = 32, preset: str = "tiny", **conventions: Any
) -> InferenceContract:
    """A tiny contract with another horizon: by default two frames long."""
    tiny = contract_from_preset(preset)
    return msgspec.structs.replace(
        tiny,
        actions=msgspec.structs.replace(tiny.actions, horizon=horizon),
        conventions=msgspec.structs.replace(tiny.conventions, **conventions),
    )


def at(value: float, count: int = 1) -> NDArray[np.float64]:
    """Actions [count, num_joints] whose every number is the same."""
    return np.full((count, NUM_JOINTS), value)


@dataclass
class BenchCamera:
    """Gives the frames that it is given."""

    name: str
    state: CameraState = "ok"
    complaint: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    waiting: list[Frame] = field(default_factory=list)
    last: Frame | None = None
    number: int = 0

    def give(
        self,
        captured_ns: int,
        *,
        number: int | None = None,
        image: NDArray[np.uint8] = IMAGE,
        doubt: str = "",
        num_dropped: int = 0,
    ) -> None:
        """Let a frame arrive."""
        self.number += 1
        self.last = Frame(
            camera=self.name, image=image, number=self.number if number is None else number,
            captured_ns=captured_ns, received_ns=captured_ns, device_ns=captured_ns,
            clock_domain="host", num_dropped=num_dropped, doubt=doubt,
        )  # fmt: skip
        self.waiting.append(self.last)

    def start(self) -> None:
        """Do nothing."""

    def take(self) -> list[Frame]:
        """Return what arrived."""
        found, self.waiting = self.waiting, []
        return found

    def newest(self) -> Frame | None:
        """Return what arrived last."""
        return self.last

    def close(self) -> None:
        """Do nothing."""


class BenchBody:
    """Arms that are at once where they were sent, which is not quite what was asked."""

    def __init__(self) -> None:
        self.mode, self.reason = "following", ""
        self.num_limited = 0
        self.now_ns = 0
        self.commands: list[tuple[int, NDArray[np.float64], int]] = []
        self.stops: list[str] = []
        self.target = np.zeros(NUM_JOINTS)
        self.position = np.zeros(NUM_JOINTS)

    def command(self, action: NDArray[np.floating], *, ramp_ns: int = 0, valid_ns: int = 0) -> None:
        """Keep it, and go there."""
        self.commands.append((self.now_ns, np.array(action, np.float64), ramp_ns))
        self.target[:] = action + SENT_OFF
        self.position[:] = action

    def state(self, out: NDArray[np.float64]) -> int:
        """Where the joints are, now."""
        out[:] = self.position
        return self.now_ns

    def sent(self, out: NDArray[np.float64]) -> None:
        """What was sent last."""
        out[:] = self.target

    def stop(self, reason: str = "") -> None:
        """Keep why."""
        self.stops.append(reason)


class HandWorker:
    """Does nothing; tells what it is told to tell."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.telling: Any = []

    def put(self, task: Task) -> None:
        """Keep a task."""
        self.tasks.append(task)

    def events(self) -> list[Event]:
        """Return what is to be told."""
        found: list[Event] = self.telling
        self.telling = []
        return found

    def of(self, kind: Any) -> list[Any]:
        """Return the tasks of a kind."""
        return [task for task in self.tasks if isinstance(task, kind)]


class BenchChunk:
    """A chunk under way; its numbers are a function of the frame."""

    def __init__(self, policy: "BenchPolicy", frame: int, prefix: Any) -> None:
        self.policy, self.frame, self.prefix = policy, frame, prefix
        self.num_left, self.is_stale = policy.num_steps, False

    def advance(self) -> bool:
        """Make one step."""
        assert not self.is_stale
        self.policy.log.append(f"step {self.frame}")
        self.policy.may_fail("step")
        self.num_left -= 1
        return self.num_left <= 0

    def give_up(self) -> None:
        """Make no more."""
        self.is_stale = True
        self.policy.log.append(f"given up {self.frame}")

    def chunk(self) -> NDArray[np.float64]:
        """Return it, with its prefix."""
        self.policy.may_fail("chunk")
        made = np.array(self.policy.chunk_of(self.frame), np.float64)
        if self.prefix is not None:
            made[: len(self.prefix)] = self.prefix
        return made


class BenchPolicy:
    """Keeps what it is told; fails where it is told to."""

    session = SimpleNamespace(memory=SimpleNamespace(num_dropped_gists=3))

    def __init__(
        self, chunk_of: Callable[[int], Any] = lambda frame: at(0.0, 32), num_steps: int = 4
    ) -> None:
        self.chunk_of, self.num_steps = chunk_of, num_steps
        self.log: list[str] = []
        self.failing: dict[str, deque[BaseException | None]] = {}
        self.groups: list[tuple[Observation, ...]] = []
        self.executed: list[Any] = []
        self.noise: list[Any] = []
        self.seen: tuple[Observation, ...] = ()

    def may_fail(self, what: str) -> None:
        """Raise what is next in line for this call."""
        line = self.failing.get(what)
        error = line.popleft() if line else None
        if error is not None:
            raise error

    def reset(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        """Forget."""
        self.log.append(f"reset {instruction} {seed} {max_steps}")
        self.may_fail("reset")
        self.groups, self.executed, self.seen = [], [], ()

    def see(self, observation: Observation) -> None:
        """Keep an observation of the next group."""
        self.may_fail("see")
        self.seen += (observation,)
        self.log.append(f"see {len(self.groups)}")

    def forget_seen(self) -> None:
        """Forget those."""
        self.seen = ()

    def set_instruction(self, instruction: str, *, keep_memory: bool) -> None:
        """Keep it."""
        self.may_fail("set_instruction")
        self.log.append(f"instruct {instruction} {keep_memory}")

    def remember(
        self, observations: Sequence[Observation] = (), executed: Any | None = None
    ) -> int:
        """Keep a group."""
        self.may_fail("remember")
        self.groups.append(self.seen + tuple(observations))
        self.seen = ()
        self.executed.append(executed)
        self.log.append(f"remember {len(self.groups) - 1}")
        return len(self.groups) - 1

    def begin_act(self, state: Any, noise: Any = None, *, prefix: Any = None) -> BenchChunk:
        """Begin a chunk."""
        self.may_fail("begin_act")
        self.noise.append(noise)
        self.log.append(f"act {len(self.groups) - 1}")
        return BenchChunk(self, len(self.groups) - 1, prefix)


NAN_CHUNK = MemorywamError("the chunk has actions that are not finite")


def shipped_bundle(factory: pytest.TempPathFactory) -> Path:
    """Export the checkpoint that ships, unless another worker of this run has done so."""
    from tests.fakes.exporter import torchlib_once

    from memorywam_robot.demo import SHIPPED_CHECKPOINT
    from memorywam_runtime.cli import main

    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # each worker has a folder of its own in the run's
    path = base / "shipped"
    with (base / "shipped.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            torchlib_once()
            assert main(["export", str(SHIPPED_CHECKPOINT), "--out", str(path)]) == 0
    return path


def calm_bundle(tiny_bundle: Path, folder: Path) -> Path:
    """Copy a tiny bundle; its chunks stay near home, so that arms may execute what it makes up."""
    from memorywam_robot.sim.scene import HOME

    path = copy_of(tiny_bundle, folder)

    def calm(manifest: Any) -> None:
        scale = np.full(NUM_JOINTS, 100.0)
        manifest["normalization"]["action"] |= {
            "scale": scale.tolist(), "offset": (-HOME * scale).tolist()
        }  # fmt: skip

    edit_manifest(path, calm)
    return path
