"""Worlds to share, because a renderer takes 0.1 s to make, and ways to act in them."""

import dataclasses

import pytest

from memorywam_robot.sim.tasks import TASKS


@pytest.fixture(scope="module")
def worlds():
    from memorywam_robot.sim.world import World  # only here: it needs the extra

    made = {task: World(task, 0) for task in TASKS}
    yield made
    for world in made.values():
        world.close()


@pytest.fixture
def plan():
    """What the expert would do if the script were another: a list of chunks [16, 14]."""
    from memorywam_robot.sim.expert import Expert

    def chunks_from(world, **changes):
        script = world.script
        try:
            world._script = dataclasses.replace(script, **changes)
            world.reset()
            expert = Expert(world)
            return [expert.chunk(frame) for frame in range(script.num_frames)]
        finally:
            world._script = script
            world.reset()

    return chunks_from


@pytest.fixture
def play():
    """Execute chunks; return whether the episode was a success."""

    def play_chunks(world, chunks):
        for chunk in chunks:
            for action in chunk:
                world.step(action)
        assert world.is_done
        return world.is_success

    return play_chunks
