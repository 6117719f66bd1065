"""The slot memory equals the whole episode under one mask, for every convention."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with, identity, random_episode, random_model

from memorywam_export.eager import eager_session
from memorywam_export.reference.oracle import Episode, Visible, episode_velocities
from memorywam_runtime.memory import Visible as RuntimeVisible

NUM_FRAMES = 14  # more than three windows of the tiny contract's 3 recent frames, past 2 anchors
TIMESTEP = 700.0


def oracle_velocities(model, episode, latents, visible):
    has_history = model.contract.conventions.action_history
    num_frames = len(episode.pixels)
    with torch.no_grad():
        return episode_velocities(
            model,
            Episode(
                latents=latents,
                states=torch.from_numpy(episode.states)[None],
                context=torch.from_numpy(episode.context),
                noisy_actions=torch.from_numpy(episode.noise)[None],
                timesteps=torch.full((1, num_frames), TIMESTEP, dtype=torch.float64),
                executed=torch.from_numpy(episode.executed)[None] if has_history else None,
            ),
            visible,
        )[0].numpy()


def slot_velocities(model, episode, cache_write, visible):
    """Drive the runtime's session frame by frame; return velocities and latents."""
    contract = model.contract
    session = eager_session(model, identity(contract), cache_write=cache_write, visible=visible)
    with torch.no_grad():
        video, action = model.text_keys_values(torch.from_numpy(episode.context))
    names = [spec.name for spec in session.manifest.graphs["prompt_kv"].outputs]
    tensors = [t.numpy() for pair in (*video[:-1], *action) for t in pair]
    session.reset(dict(zip(names, tensors, strict=True)))
    velocities, latents = [], []
    for frame, pixels in enumerate(episode.pixels):
        past = episode.executed[frame - 1]
        has_past = frame > 0 and contract.conventions.action_history
        if contract.conventions.proprio_in_video_context:
            session.set_state(episode.states[frame])
        session.remember(pixels, past if has_past else None)
        latents.append(torch.from_numpy(session.calls.tensor("cache_update", "latent").copy()))
        session.set_state(episode.states[frame])
        # One Euler step of length 1 from a fixed timestep: x_next - x is the velocity.
        session._prepare_chunk(session.memory.rows.chunk)
        session.calls.input("action_step", "x").put(episode.noise[frame][None])
        session.calls._step("a test's", TIMESTEP, 1.0, turn=0)()
        x_next = session.calls.tensor("action_step", "x_next")[0]
        velocities.append(x_next - episode.noise[frame])
    return np.stack(velocities), torch.cat(latents, dim=2)


CONVENTIONS: list[dict[str, Any]] = [
    {"recent_includes_current": a, "visual_sees_own_gist": b, "action_history": c}
    for a, b, c in itertools.product([True, False], repeat=3)
]
OTHERS: list[dict[str, Any]] = [
    {"action_position": "row_below", "gist_hw_marker": (0.0, 0.0)},
    {"action_position": "sequence", "modulation_dtype": "float32"},
    {"gist_timestep": 500.0, "clean_timestep": 10.0},
    {"proprio_in_video_context": True},
]


@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
@pytest.mark.parametrize("conventions", [*CONVENTIONS, *OTHERS], ids=str)
def test_slot_memory_equals_the_masked_episode(conventions, cache_write):
    model = random_model(contract_with("tiny", **conventions))
    episode = random_episode(model.contract, NUM_FRAMES)
    found, latents = slot_velocities(model, episode, cache_write, None)
    wanted = oracle_velocities(model, episode, latents, Visible())
    assert np.abs(wanted).max() > 0.1
    assert np.abs(found - wanted).max() <= 1e-9


@pytest.mark.parametrize(
    "hidden",
    [("anchors",), ("gists",), ("window",), ("anchors", "gists"), ("anchors", "window", "gists")],
    ids=str,
)
def test_ablations_hide_the_same_in_both(hidden):
    model = random_model(contract_with("tiny"))
    episode = random_episode(model.contract, NUM_FRAMES)
    flags = dict.fromkeys(hidden, False)
    found, latents = slot_velocities(model, episode, "in_place", RuntimeVisible(**flags))
    wanted = oracle_velocities(model, episode, latents, Visible(**flags))
    everything = oracle_velocities(model, episode, latents, Visible())
    assert np.abs(found - wanted).max() <= 1e-9
    assert np.abs(wanted[-1] - everything[-1]).max() > 1e-6


def test_fastwam_sees_only_the_current_frame():
    model = random_model(contract_with("tiny-fastwam"))
    episode = random_episode(model.contract, 4)
    found, latents = slot_velocities(model, episode, "in_place", None)
    wanted = oracle_velocities(model, episode, latents, Visible())
    assert np.abs(found - wanted).max() <= 1e-9


def test_conventions_matter():
    """Two conventions that differ must give different actions, or the test above proves nothing."""
    results = []
    for conventions in [*CONVENTIONS[::2], *OTHERS[:3]]:
        model = random_model(contract_with("tiny", **conventions))
        episode = random_episode(model.contract, NUM_FRAMES)
        results.append(slot_velocities(model, episode, "in_place", None)[0][-1])
    for first, second in itertools.combinations(results, 2):
        assert np.abs(first - second).max() > 1e-6
