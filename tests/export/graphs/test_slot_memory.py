"""The slot memory equals the whole episode under one mask, for every convention."""

import itertools
from typing import Any

import numpy as np
import pytest
from tests.fakes.episodes import contract_with, random_episode, random_model
from tests.fakes.velocities import oracle_velocities, slot_velocities

from memorywam_runtime.memory import Visible

NUM_FRAMES = 14  # more than three windows of the tiny contract's 3 recent frames, past 2 anchors


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
    found, latents = slot_velocities(model, episode, "in_place", Visible(**flags))
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
