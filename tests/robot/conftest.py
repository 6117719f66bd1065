"""A tiny bundle, and the expert as a policy, so that episodes can succeed without training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.loop import ChunkPolicy
from memorywam_runtime.cli import main
from memorywam_runtime.observation import Observation


class ScriptedPolicy:
    """Gives chunks by frame number, and keeps all that it was told."""

    def __init__(self, chunk_of, contract=None):
        self.contract = contract or contract_from_preset("demo")
        self.chunk_of = chunk_of
        self.groups: list[tuple[int, ...]] = []
        self.seen: tuple[int, ...] = ()
        self.executed: list[NDArray[np.floating] | None] = []
        self.resets: list[tuple[str, int, int | None]] = []

    def reset(self, instruction: str, *, seed: int = 0, max_steps: int | None = None) -> None:
        self.resets.append((instruction, seed, max_steps))
        self.groups, self.executed, self.seen = [], [], ()

    def expected_steps(self) -> tuple[int, ...]:
        if not self.groups:
            return (0,)
        stride = self.contract.observations.steps_per_image
        last = self.groups[-1][-1]
        count = self.contract.images_per_frame
        return tuple(last + stride * (1 + k) for k in range(len(self.seen), count))

    def see(self, observation: Observation) -> None:
        assert observation.step == self.expected_steps()[0]
        self.seen += (observation.step,)

    def remember(
        self, observations: Sequence[Observation], executed: NDArray[np.floating] | None = None
    ) -> int:
        steps = tuple(observation.step for observation in observations)
        assert steps == self.expected_steps()
        self.groups.append(self.seen + steps)
        self.seen = ()
        self.executed.append(executed)
        return len(self.groups) - 1

    def act(self, state: NDArray[np.floating]) -> NDArray[np.float64]:
        chunk: NDArray[np.float64] = self.chunk_of(len(self.groups) - 1, state)
        return chunk


@pytest.fixture
def scripted():
    """Make a policy from a function of frame and state."""
    return ScriptedPolicy


@pytest.fixture(scope="session")
def robots():
    """Simulated robots by task, opened when asked for, because a world takes a moment to make."""
    pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
    from memorywam_robot.simulated import SimulatedRobot

    made: dict[str, SimulatedRobot] = {}

    def robot(task):
        if task not in made:
            made[task] = SimulatedRobot(task)
        return made[task]

    yield robot
    for one in made.values():
        one.close()


@pytest.fixture
def expert():
    """Make the scripted expert of a robot's world into a policy."""
    from memorywam_robot.sim.expert import Expert

    def policy(robot) -> ChunkPolicy:
        made: dict[int, Expert] = {}

        def chunk(frame, _state):
            # The world is reset between episodes: frame 0 is where a new script begins.
            if frame == 0:
                made[0] = Expert(robot.world)
            return made[0].chunk(frame)

        return ScriptedPolicy(chunk)

    return policy


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory) -> Path:
    from tests.fakes.bundles import bundle_once
    from tests.fakes.rungs import NEWEST_OPSET

    return bundle_once(tmp_path_factory, NEWEST_OPSET)


@pytest.fixture(scope="session")
def recorded(tiny_bundle, tmp_path_factory):
    """One simulated episode, recorded by the verb run."""
    directory = tmp_path_factory.mktemp("recorded")
    assert main(
        ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random", "--seed", "2",
         "--threads", "1", "--hide", "anchors", "--record", str(directory), "--record-memory"]
    ) == 0  # fmt: skip
    (path,) = directory.iterdir()
    return path


@pytest.fixture
def replay(tiny_bundle, tmp_path, capsys):
    """Call the verb; return status, JSON data if any, and what was said."""

    def call(recording, *words, bundle=tiny_bundle):
        path = tmp_path / "result.json"
        path.unlink(missing_ok=True)
        status = main(
            ["replay", str(recording), "--bundle", str(bundle), *words, "--json", str(path)]
        )
        data = json.loads(path.read_bytes())["data"] if path.exists() else None
        said = capsys.readouterr()
        return status, data, said.out + said.err

    return call
