"""Rotary tables of the runtime equal those of the reference."""

import msgspec
import numpy as np
import pytest
import torch
from tests.fakes.episodes import contract_with

from memorywam_export.checkpoints.presets import PRESETS, contract_from_preset
from memorywam_export.reference.rope import action_angles, frame_angles, tables_from_angles
from memorywam_runtime.positions import Positions

FRAMES = [0, 1, 5000]  # the last is far beyond the 1024 rows of upstream's table
CONVENTIONS = [
    {},
    {"action_position": "row_below"},
    {"action_position": "sequence"},
    {"gist_hw_marker": (0.0, 0.0)},
    {"gist_hw_marker": (3.0, 2.5)},
    {"vae_history": "windowed"},
]


def equal(contract, frame):
    positions = Positions(contract)
    for found, angles in (
        (positions.of_frame(frame), frame_angles(contract, frame)),
        (positions.of_chunk(frame), action_angles(contract, frame)),
    ):
        wanted = tables_from_angles(angles, torch.float64)
        for table, reference in zip(found, wanted, strict=True):
            assert table.dtype == np.float64
            assert table.shape == tuple(reference.shape)
            # numpy and torch may differ in the last bit of a cosine, or of a frequency (at most
            # 1), which the position multiplies. Float32, which graphs take, is off by 6e-8.
            atol = 1e-15 + max(frame, contract.actions.horizon, *contract.grid_shape) * 2**-53
            np.testing.assert_allclose(table, reference.numpy(), rtol=0, atol=atol)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("conventions", CONVENTIONS, ids=str)
def test_tables_equal_the_reference(conventions, frame):
    equal(contract_with("tiny", **conventions), frame)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", PRESETS)
def test_tables_of_every_preset_equal_the_reference(name, frame):
    equal(contract_from_preset(name), frame)


def test_a_fraction_lies_between_this_frame_and_the_next():
    contract = contract_from_preset("tiny")
    cos, sin = Positions(contract).of_chunk(7)
    time = np.unwrap(np.arctan2(sin[:, 0], cos[:, 0]))  # the first pair turns at 1 rad a frame
    expected = 7 + (np.arange(16) + 1) / 17
    np.testing.assert_allclose(np.angle(np.exp(1j * (time - expected))), 0, atol=1e-14)


def test_rows_and_columns_take_their_own_pairs():
    contract = contract_from_preset("tiny")
    pairs, rows, columns = contract.rope_pairs
    assert (pairs, rows, columns) == (2, 2, 2)
    cos, _ = Positions(contract).of_frame(3)
    assert cos.shape == (contract.num_frame_tokens, contract.head_dim // 2)
    token = 1 * contract.grid_shape[1] + 1  # row 1, column 1
    np.testing.assert_allclose(cos[token, [0, 2, 4]], np.cos([3.0, 1.0, 1.0]), atol=1e-15)
    np.testing.assert_allclose(cos[-1, [0, 2, 4]], np.cos([3.0, -1.0, -1.0]), atol=1e-15)


def test_where_observations_stand_alone_every_frame_is_at_0():
    positions = Positions(contract_from_preset("tiny-fastwam"))
    for first, later in zip(positions.of_frame(0), positions.of_frame(9), strict=True):
        np.testing.assert_array_equal(first, later)


def test_without_gists_only_visual_tokens_have_positions():
    contract = contract_from_preset("tiny")
    none = msgspec.structs.replace(
        contract, memory=msgspec.structs.replace(contract.memory, num_gists=0)
    )
    assert Positions(none).of_frame(0)[0].shape[0] == contract.num_visual
    equal(none, 3)
