"""A session's life for chunks in slices: what is remembered between steps, and what that gives."""

import functools
from typing import Any

import numpy as np
import torch
from tests.fakes.bundles import differences
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session

HISTORY: dict[str, Any] = {"action_history": True}
OF_VIDEO: dict[str, Any] = {"proprio_in_video_context": True}
CASES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "in place": ("tiny", {}, "in_place", "refuse"),
    "copy": ("tiny", {}, "copy", "refuse"),
    "gists dropped": ("tiny", {}, "in_place", "drop-oldest-gist"),
    "history in place": ("tiny", HISTORY, "in_place", "refuse"),
    "history copied, state in video": ("tiny", HISTORY | OF_VIDEO, "copy", "drop-oldest-gist"),
    "state in video": ("tiny", OF_VIDEO, "in_place", "refuse"),
    "window without current": ("tiny", {"recent_includes_current": False}, "in_place", "refuse"),
    "single frame": ("tiny-fastwam", {}, "in_place", "refuse"),
    "windowed": ("tiny", {"vae_history": "windowed"}, "copy", "refuse"),
}
NUM_STEPS = 4


class Life:
    """A session that is given the same pictures, states and noise whenever it is asked again."""

    def __init__(self, session, text=None):
        self.session = session
        self.contract = session.contract
        self.text = text
        self.dtype = session.calls.input("vae_first", "image").host.dtype
        session.reset(text)
        self.number = 0
        self.has_state = False

    def draw(self, *shape):
        self.number += 1
        return np.random.default_rng(self.number).standard_normal(shape)

    def chunk(self):
        return self.draw(self.contract.actions.horizon, self.contract.actions.action_dim)

    def frame(self):
        session, views = self.session, self.contract.observations
        count = session.encoder.num_needed(session.memory.num_frames)
        pixels = np.tanh(self.draw(1, 3, count, views.height, views.width)).astype(self.dtype)
        conventions = self.contract.conventions
        state = self.draw(14) if conventions.proprio_in_video_context else None
        keeps = conventions.action_history and session.memory.num_frames and self.has_state
        session.remember(pixels, self.chunk() if keeps else None, state)
        self.has_state |= state is not None

    def state(self):
        self.session.set_state(self.draw(14))
        self.has_state = True

    def act(self):
        return self.session.denoise(self.chunk(), 3)

    def begin(self, num_frames):
        """Remember frames and stand before a chunk."""
        for _ in range(num_frames):
            self.frame()
            self.state()

    def memory(self):
        """What is kept, without the rows where chunks work, which nothing later sees."""
        rows, found = self.session.memory.rows, self.session.snapshot()
        for name in self.session.calls.memory:
            found.arrays[name][:, :, rows.chunk : rows.chunk + rows.num_actions] = 0
        return found


def interleaved(life, noise, between, num_steps=NUM_STEPS, prefix=None):
    """Denoise a chunk, and do what is said before each step and after the last."""
    chunk = life.session.begin_chunk(noise, num_steps, prefix=prefix)
    acts: list[Any] = []
    for step in range(num_steps + 1):
        names = between[step] if step < len(between) else ()
        acts.extend(getattr(life, name)() for name in names)
        if step < num_steps:
            assert chunk.num_left == num_steps - step
            assert chunk.advance() is (step == num_steps - 1)
    return chunk.actions(), acts


def check(life, num_frames, between, num_steps=NUM_STEPS):
    """A chunk with updates between its steps against one without, and the reverse."""
    session = life.session
    life.begin(num_frames)
    start, number, noise = session.snapshot(), life.number, life.chunk()
    wanted = session.denoise(noise, num_steps)
    found, acts = interleaved(life, noise, between, num_steps)
    assert found.tobytes() == wanted.tobytes()
    assert found.dtype == wanted.dtype
    after = life.memory()
    session.restore(start)
    life.number = number + 1
    alone = [getattr(life, name)() for names in between for name in names]
    assert differences(life.memory(), after) == []
    for one, other in zip(acts, alone, strict=True):
        np.testing.assert_array_equal(one, other)
    return wanted


@functools.cache
def eager(case):
    preset, conventions, cache_write, on_full = CASES[case]
    model = random_model(contract_with(preset, **conventions), torch.float32)
    kinds: Any = {"cache_write": cache_write, "on_full": on_full}
    frames = 3 if on_full != "refuse" else 64
    return eager_session(model, identity(model.contract), max_frames=frames, **kinds)
