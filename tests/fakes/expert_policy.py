"""The scripted expert as a policy with steps, so that an asynchronous episode can succeed."""

import numpy as np

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.sim.expert import Expert
from memorywam_robot.sim.world import World
from memorywam_runtime.observation import Observation

__all__ = ["ExpertActing", "ExpertPolicy"]

NUM_STEPS = 10


class ExpertActing:
    """A chunk that is known from the start, and takes its steps all the same."""

    def __init__(self, chunk):
        self._chunk = chunk
        self.num_left = NUM_STEPS
        self.is_stale = False

    def advance(self):
        self.num_left -= 1
        return self.num_left <= 0

    def give_up(self):
        self.is_stale = True

    def chunk(self):
        return self._chunk.copy()


class ExpertPolicy:
    """Gives the expert's chunk of each frame, and keeps the steps that frames were made of."""

    num_denoising_steps = NUM_STEPS

    def __init__(self):
        self.contract = contract_from_preset("demo")
        self.world: World | None = None
        self.groups = []
        self.seen: tuple[Observation, ...] = ()

    def reset(self, instruction, *, seed=0, max_steps=None):
        self.groups, self.seen = [], ()
        assert self.world is not None
        self.expert = Expert(self.world)

    def see(self, observation):
        self.seen += (observation,)

    def forget_seen(self):
        self.seen = ()

    def remember(self, observations=(), executed=None):
        observations, self.seen = self.seen + tuple(observations), ()
        steps = [observation.step for observation in observations]
        stride, count = self.contract.observations.steps_per_image, len(self.groups)
        first = self.groups[-1][-1] if self.groups else -stride
        expected = 1 if not count else self.contract.images_per_frame
        assert steps == [first + stride * (1 + k) for k in range(expected)]
        assert all(np.isfinite(observation.state).all() for observation in observations)
        self.groups.append(steps)
        return count

    def begin_act(self, state, noise=None, *, prefix=None):
        return ExpertActing(self.expert.chunk(len(self.groups) - 1))
