"""Whatever is remembered, reset, saved and restored, memory is what the reference says it is."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_export.parity.parity import memory_of, play, random_script, reference_trace, text_of
from memorywam_runtime.errors import CapacityError
from memorywam_runtime.manifest import MemoryPlan

NUM_PICTURES = 6
LIMIT = 1e-6  # a session gives actions as float32
NAMES = ("frame", "frame", "frame", "frame", "snapshot", "restore", "reset", "instruction")
OPERATIONS = st.tuples(st.sampled_from(NAMES), st.integers(0, NUM_PICTURES - 1))
CONVENTIONS: list[dict[str, Any]] = [
    {},
    {"recent_includes_current": False, "visual_sees_own_gist": True, "vae_history": "windowed"},
]


@functools.cache
def model_of(number):
    return random_model(contract_with("tiny", **CONVENTIONS[number]))


class Schedule:
    """A session, and the frames that it must have remembered."""

    def __init__(self, number, capacity, on_full):
        self.model = model_of(number)
        contract = self.model.contract
        self.script = random_script(contract, NUM_PICTURES, seed=0)
        buckets = tuple(sorted({min(2, capacity), min(4, capacity), capacity}))
        plan = MemoryPlan(
            max_frames=capacity, gist_buckets=buckets, on_full=on_full, bytes_per_token=1
        )
        self.session = eager_session(self.model, identity(contract), plan=plan)
        self.capacity, self.on_full = capacity, on_full
        self.frames: list[int] = []
        self.saved: tuple[Any, list[int], bool] | None = None
        self.is_other = False
        self.text = {
            other: text_of(self.session, context, self.script.num_tokens)
            for other, context in ((False, self.script.context), (True, self.script.other_context))
        }
        self.reset()

    def played(self, frames):
        """What the reference is fed for these frames."""
        script, pictures = self.script, list(frames)
        return replace(
            script,
            pixels=[
                # The first frame is one image, all others are groups.
                script.pixels[max(picture, 1)][:, :, : None if place else 1]
                for place, picture in enumerate(pictures)
            ],
            states=script.states[pictures],
            noise=script.noise[pictures],
            executed=script.executed[pictures],
            context=script.other_context if self.is_other else script.context,
        )

    def frame(self, picture):
        frames = [*self.frames, picture]
        is_full = len(self.frames) >= self.capacity and self.on_full != "drop-oldest-gist"
        before = self.session.snapshot()
        script = self.played(frames)
        if is_full:
            with pytest.raises(CapacityError):
                play(self.session, script, len(frames) - 1)
            after = self.session.snapshot()
            assert after.memory == before.memory
            assert all(np.array_equal(after.arrays[n], before.arrays[n]) for n in before.arrays)
            return
        self.actions = play(self.session, script, len(frames) - 1)
        self.frames = frames

    def reset(self, *_):
        self.session.reset(self.text[self.is_other])
        self.frames = []

    def instruction(self, *_):
        """Another one starts an episode: what memory holds was made under the old one."""
        self.is_other = not self.is_other
        self.reset()

    def snapshot(self, *_):
        self.saved = (self.session.snapshot(), list(self.frames), self.is_other)

    def restore(self, *_):
        if self.saved is not None:
            taken, frames, self.is_other = self.saved
            self.session.restore(taken)
            self.frames = list(frames)

    def check(self):
        """Compare all that is kept, and the newest actions, with the reference."""
        if not self.frames:
            return
        truth = reference_trace(self.model, self.played(self.frames))
        memory, _, kept = memory_of(self.session, len(self.frames))
        dropped = max(0, len(self.frames) - self.capacity)
        assert self.session.memory.num_dropped_gists == dropped
        if dropped:  # the reference forgets nothing: what was kept of its first frames stands
            return
        assert kept == truth.kept
        for name, wanted in truth.memory.items():
            assert np.abs(memory[name] - wanted).max() <= 1e-9, name
        actions = self.session.denoise(self.script.noise[self.frames[-1]])
        assert np.abs(actions - truth.actions[-1]).max() <= LIMIT


SCHEDULES = given(
    operations=st.lists(OPERATIONS, min_size=4, max_size=16),
    capacity=st.sampled_from([1, 3, 7, 20]),
    on_full=st.sampled_from(["refuse", "stop", "drop-oldest-gist"]),
)


@pytest.mark.parametrize("number", range(len(CONVENTIONS)))
@settings(max_examples=8, deadline=None)
@SCHEDULES
def test_memory_is_what_the_reference_remembers(number, operations, capacity, on_full):
    follow(number, operations, capacity, on_full)


@pytest.mark.proof
@pytest.mark.parametrize("number", range(len(CONVENTIONS)))
@settings(max_examples=100, deadline=None)
@SCHEDULES
def test_memory_is_what_the_reference_remembers_in_many_orders(
    number, operations, capacity, on_full
):
    follow(number, operations, capacity, on_full)


def follow(number, operations, capacity, on_full):
    schedule = Schedule(number, capacity, on_full)
    schedule.frame(0)
    for name, picture in operations:
        getattr(schedule, name)(picture)
        if name in ("restore", "instruction"):
            schedule.check()
    schedule.check()
