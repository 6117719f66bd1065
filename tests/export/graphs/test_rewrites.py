"""Every exact rewrite, alone and with the others, is the reference: whole episodes in float64."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with, random_episode, random_model
from tests.fakes.velocities import oracle_velocities, slot_velocities, weights_of

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_export.eager.eager import rewritten_model
from memorywam_export.graphs.rewrites import (
    NO_REWRITES,
    REWRITES,
    Rewrites,
    halves_order,
    last_keys_values,
    rewrites_for,
)
from memorywam_export.reference.blocks import Block
from memorywam_export.reference.rope import frame_angles, tables_from_angles
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import CacheWrite
from memorywam_runtime.memory import Visible

OF_THE_TRANSFORMERS = ("fold-modulation", "modulation-table", "collapse-padding", "rope-halves")
NUM_FRAMES = 14  # more than three windows of the tiny contract's 3 recent frames, past 2 anchors
TOLERANCE = 1e-11
"""Absolute, of velocities about 1; measured: 4e-14 with every rewrite."""


def error_of(
    contract, rewrites, cache_write: CacheWrite = "in_place", num_frames: int = NUM_FRAMES
):
    """Return the largest error of a whole episode against the oracle, and the largest value."""
    model = random_model(contract)
    episode = random_episode(contract, num_frames)
    found, latents = slot_velocities(model, episode, cache_write, None, rewrites)
    wanted = oracle_velocities(model, episode, latents, Visible())
    return np.abs(found - wanted).max(), np.abs(wanted).max()


def only(contract, *names, **options):
    """Return these rewrites alone."""
    return rewrites_for(contract, unwanted=set(REWRITES) - set(names), **options)


@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
@pytest.mark.parametrize("names", [(), *((name,) for name in REWRITES), REWRITES], ids=str)
def test_an_episode_is_the_same_with_each_rewrite_and_with_all(names, cache_write):
    contract = contract_with("tiny", text_len=9)
    rewrites = only(contract, *names, text_rows=6)
    assert set(rewrites.names) == set(names)
    error, size = error_of(contract, rewrites, cache_write)
    assert size > 0.1
    assert error <= TOLERANCE


CONVENTIONS: list[dict[str, Any]] = [
    {"recent_includes_current": a, "visual_sees_own_gist": b, "action_history": c}
    for a, b, c in itertools.product([True, False], repeat=3)
]
OTHERS: list[dict[str, Any]] = [
    {"action_position": "row_below", "gist_hw_marker": (0.0, 0.0)},
    {"action_position": "sequence", "modulation_dtype": "float32"},
    {"clean_timestep": 10.0, "gist_timestep": 10.0},
    {"gist_timestep": 500.0, "clean_timestep": 10.0},
    {"proprio_in_video_context": True},
    {"proprio_in_video_context": True, "action_history": True},
    {"vae_history": "windowed"},
]


@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
@pytest.mark.parametrize("conventions", [*CONVENTIONS, *OTHERS], ids=str)
def test_all_rewrites_hold_under_every_convention(conventions, cache_write):
    contract = contract_with("tiny", **conventions)
    rewrites = rewrites_for(contract)
    folds = conventions.get("gist_timestep") in (None, conventions.get("clean_timestep"))
    assert ("fold-modulation" in rewrites) is folds
    error, size = error_of(contract, rewrites, cache_write)
    assert size > 0.1
    assert error <= TOLERANCE


@pytest.mark.parametrize("preset", ["tiny-fastwam", "demo"])
def test_all_rewrites_hold_for_other_presets(preset):
    contract = contract_from_preset(preset)
    error, size = error_of(contract, rewrites_for(contract), num_frames=4)
    assert size > 0.1
    assert error <= TOLERANCE


@pytest.mark.parametrize("text_rows", [4, 5, 8, 9, 64])
def test_the_prompt_may_take_any_number_of_rows(text_rows):
    """3 tokens of 9: one zero row at the end, others hidden behind it, or all the text length."""
    contract = contract_with("tiny", text_len=9)
    rewrites = only(contract, "collapse-padding", text_rows=text_rows)
    assert rewrites.text_rows == min(text_rows, 9)
    error, _ = error_of(contract, rewrites, num_frames=3)
    assert error <= TOLERANCE


def test_a_prompt_of_the_full_length_has_no_zero_row():
    contract = contract_with("tiny", text_len=3)
    error, _ = error_of(contract, only(contract, "collapse-padding"), num_frames=3)
    assert error <= TOLERANCE


def test_dropping_the_zero_rows_would_be_another_model(monkeypatch):
    """Or the tests above would not see the bias."""
    monkeypatch.setattr("memorywam_runtime.padding.math.log", lambda count: -1e9)
    contract = contract_with("tiny", text_len=9)
    error, _ = error_of(contract, only(contract, "collapse-padding"), num_frames=3)
    assert error > 1e-3


@pytest.mark.parametrize("name", OF_THE_TRANSFORMERS)
def test_graphs_and_weights_must_be_rewritten_alike(name, monkeypatch):
    """Each rewrite, taken back in one place alone, shows: no test here is blind to it."""
    contract = contract_with("tiny", text_len=9)
    model = random_model(contract)
    if name == "fold-modulation":
        monkeypatch.setattr("memorywam_export.graphs.folding._Source.around", lambda *_: None)
    elif name == "rope-halves":
        monkeypatch.setattr("memorywam_export.graphs.folding._in_halves", lambda make, _: make())
    elif name == "modulation-table":
        monkeypatch.setattr(
            "memorywam_runtime.calls.Calls._modulation",
            lambda calls, name, timestep: calls._constant("action_step", "modulation", 0.1, name),
        )
    else:
        monkeypatch.setattr("memorywam_runtime.padding.math.log", lambda count: 0.0)
    episode = random_episode(contract, 3)
    found, latents = slot_velocities(model, episode, "in_place", None, only(contract, name))
    wanted = oracle_velocities(model, episode, latents, Visible())
    assert np.abs(found - wanted).max() > 1e-3


def blocks_of(rewrites):
    """Return the video blocks of a model and of its rewritten form, tokens and tables."""
    contract = contract_with("tiny")
    model = random_model(contract)
    changed = rewritten_model(contract, weights_of(model), torch.float64, rewrites)
    tables = tables_from_angles(frame_angles(contract, 3), torch.float64)
    x = torch.randn(1, len(tables[0]), contract.video.hidden, dtype=torch.float64)
    return model.video, changed.video, x, tables


def relative(found, wanted):
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("names", [("fold-modulation",), ("rope-halves",), REWRITES], ids=str)
def test_a_block_is_the_same_to_the_last_digits(names):
    video, changed, x, tables = blocks_of(Rewrites(names=names))
    e = video.modulation(x.device)
    context = torch.randn(1, 4, x.shape[-1], dtype=torch.float64)

    def through(block):
        def attend(q, k, v):
            return torch.softmax(q @ k.mT, -1).matmul(v).transpose(1, 2).flatten(2)

        def cross(attention, y):
            return attention(y, attention.keys(context), attention.values(context))

        return block(x, e, tables, attend, cross)

    for block, other in list(zip(video.blocks, changed.blocks, strict=True))[:-1]:
        assert relative(through(other), through(block)) <= 1e-13


@torch.no_grad()
@pytest.mark.parametrize("names", [(), ("fold-modulation",), ("rope-halves",), REWRITES], ids=str)
def test_the_last_block_is_needed_for_keys_and_values_alone(names):
    video, changed, x, tables = blocks_of(Rewrites(names=names) if names else NO_REWRITES)
    e = video.modulation(x.device)
    last = video.blocks[-1]
    assert isinstance(last, Block)
    wanted_k, wanted_v = last.keys_values(x, e, tables)
    e = None if "fold-modulation" in names else e
    found_k, found_v = last_keys_values(changed.blocks[-1], x, e, tables)
    if "rope-halves" in names:
        found_k = found_k[..., halves_order(found_k.shape[-1]).argsort()]
    assert relative(found_k, wanted_k) <= 1e-13
    assert relative(found_v, wanted_v) <= 1e-13


def test_halves_order_moves_pairs_apart():
    assert halves_order(8).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wanted": ["dream"]}, "unknown rewrite 'dream'; expected one of fold-modulation, "),
        ({"unwanted": ["dream"]}, "unknown rewrite 'dream'"),
        (
            {"wanted": ["rope-halves"], "unwanted": ["rope-halves"]},
            "found rewrite 'rope-halves' both on and off",
        ),
        ({"text_rows": 1}, "found 1 text rows; expected at least 2"),
    ],
)
def test_rewrites_that_mean_nothing_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        rewrites_for(contract_from_preset("tiny"), **options)


def test_folding_is_left_out_or_refused_where_gist_tokens_have_their_own_timestep():
    contract = contract_with("tiny", gist_timestep=500.0)
    assert "fold-modulation" not in rewrites_for(contract)
    with pytest.raises(InputError, match=r"gist tokens with a timestep of their own \(500.0"):
        rewrites_for(contract, wanted=["fold-modulation"])
