"""States and actions to the model's units and back; statistics that cannot be used."""

import json
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import CheckpointError, InputError
from memorywam_runtime.normalization import Affine, normalization_from_stats

MODES = {"zscore": ("mean", "std"), "minmax": ("min", "max"), "quantile": ("q01", "q99")}


def space(mode: Literal["zscore", "minmax", "quantile"] = "zscore", clamp=5.0):
    return ActionSpace(action_dim=3, state_dim=2, normalization=mode, clamp=clamp)


def stats():
    """Return statistics in which no two modes agree."""
    return {
        "state": {
            "joint": {
                "global_mean": [1.0, -2.0], "global_std": [0.5, 4.0],
                "global_min": [0.0, -4.0], "global_max": [2.0, 4.0],
                "global_q01": [0.5, -3.0], "global_q99": [1.5, 3.0],
            }
        },
        "action": {
            "arm": {
                "global_mean": [0.0, 1.0], "global_std": [2.0, 0.25],
                "global_min": [-2.0, 0.0], "global_max": [2.0, 1.0],
                "global_q01": [-1.0, 0.25], "global_q99": [1.0, 0.75],
            },
            "gripper": {
                "global_mean": [0.5], "global_std": [0.5],
                "global_min": [0.0], "global_max": [1.0],
                "global_q01": [0.1], "global_q99": [0.9],
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "state", "action"),
    [
        ("zscore", [(2.0 - 1) / 0.5, (2.0 + 2) / 4], [0.5, 0.0, 1.0]),
        ("minmax", [1.0, 0.5], [0.5, 1.0, 1.0]),
        ("quantile", [2.0, 2 / 3], [1.0, 2.0, 1.25]),
    ],
)
def test_modes_by_hand(mode, state, action):
    found = normalization_from_stats(stats(), space(mode))
    np.testing.assert_allclose(found.state.normalized(np.array([2.0, 2.0]), "s"), state, rtol=1e-6)
    raw = np.array([1.0, 1.0, 1.0])
    np.testing.assert_allclose(found.action.normalized(raw, "a"), action, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_ends_of_the_range(mode):
    low, high = (f"global_{name}" for name in MODES[mode])
    group = stats()["state"]["joint"]
    found = normalization_from_stats(stats(), space(mode)).state
    if mode == "zscore":
        mean, std = np.array(group[low]), np.array(group[high])
        np.testing.assert_allclose(found.normalized(mean, "s"), 0, atol=1e-6)
        np.testing.assert_allclose(found.normalized(mean + std, "s"), 1, rtol=1e-6)
    else:
        np.testing.assert_allclose(found.normalized(np.array(group[low]), "s"), -1, rtol=1e-6)
        np.testing.assert_allclose(found.normalized(np.array(group[high]), "s"), 1, rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_constant_dimension_is_centred_and_not_scaled(mode):
    """A joint that never moved in training must not turn encoder noise into +-5."""
    first, second = (f"global_{name}" for name in MODES[mode])
    changed = stats()
    group = changed["state"]["joint"]
    group[first][0] = 1.5
    group[second][0] = 9e-5 if mode == "zscore" else 1.5 + 9e-5
    found = normalization_from_stats(changed, space(mode)).state
    assert found.scale[0] == 1.0
    np.testing.assert_allclose(found.normalized(np.array([1.5, 0.0]), "s")[0], 0.0, atol=1e-7)
    np.testing.assert_allclose(found.normalized(np.array([1.75, 0.0]), "s")[0], 0.25, atol=1e-7)
    np.testing.assert_allclose(found.raw(np.array([0.25, 0.0]))[0], 1.75)


@pytest.mark.parametrize("mode", MODES)
@given(values=st.lists(st.floats(-4, 4), min_size=3, max_size=3))
def test_there_and_back(mode, values):
    """Within the clamp, an action survives both ways to float32's precision."""
    found = normalization_from_stats(stats(), space(mode, clamp=1e6)).action
    raw = np.array(values)
    back = found.raw(found.normalized(raw, "a"))
    np.testing.assert_allclose(back, raw, rtol=1e-6, atol=1e-6)


def test_clamped_on_the_way_in_only():
    found = normalization_from_stats(stats(), space("zscore")).state
    np.testing.assert_array_equal(found.normalized(np.array([1e3, -1e3]), "s"), [5.0, -5.0])
    np.testing.assert_array_equal(found.normalized(np.array([1e300, -1e300]), "s"), [5.0, -5.0])
    # Out: 100 standard deviations stay 100.
    np.testing.assert_allclose(found.raw(np.array([100.0, -100.0])), [51.0, -402.0], rtol=1e-6)


def test_whole_chunks_are_normalized_row_by_row():
    found = normalization_from_stats(stats(), space()).action
    chunk = np.arange(12.0).reshape(4, 3)
    rows = np.stack([found.normalized(row, "a") for row in chunk])
    np.testing.assert_array_equal(found.normalized(chunk, "a"), rows)
    assert found.normalized(chunk, "a").dtype == np.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named_by_index(value):
    found = normalization_from_stats(stats(), space())
    with pytest.raises(
        InputError, match=rf"joint state: found {value} at index \[1\]; expected fi"
    ):
        found.state.normalized(np.array([0.0, value]), "joint state")
    chunk = np.zeros((4, 3))
    chunk[2, 1] = value
    with pytest.raises(InputError, match=r"executed: found .* at index \[2, 1\]"):
        found.action.normalized(chunk, "executed")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 1)])
def test_wrong_sizes_are_refused(shape):
    found = normalization_from_stats(stats(), space())
    with pytest.raises(
        InputError, match=r"joint state: found shape \[.*\]; expected \[\.\.\., 2\]"
    ):
        found.state.normalized(np.zeros(shape), "joint state")


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": (1.0,)},
        {"scale": (0.0, 1.0)},
        {"scale": (float("nan"), 1.0)},
        {"offset": (float("inf"), 1.0)},
        {"clamp": 0.0},
        {"clamp": -1.0},
        {"clamp": float("nan")},
    ],
    ids=str,
)
def test_a_map_that_cannot_be_inverted_is_refused(changes):
    fields = {"scale": (1.0, 2.0), "offset": (0.0, 0.0), "clamp": 5.0}
    with pytest.raises(InputError, match="normalization: "):
        Affine(**fields | changes)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(json.loads(json.dumps({**fields, "scale": [0.0, 1.0]})), Affine)


def broken(change):
    changed = stats()
    change(changed)
    return changed


MALFORMED = [
    (None, "no group 'state'"),
    ([], "no group 'state'"),
    ({"state": {}}, "no group 'state'"),
    (broken(lambda s: s.pop("action")), "no group 'action'"),
    (broken(lambda s: s.update(action=[])), "no group 'action'"),
    (broken(lambda s: s["state"].update(joint=3)), "'state.joint' has no 'global_mean'"),
    (broken(lambda s: s["action"]["arm"].pop("global_std")), "'action.arm' has no 'global_std'"),
    (
        broken(lambda s: s["action"].pop("gripper")),
        "'action' global_mean has 2 values; expected 3 finite ones",
    ),
    (
        broken(lambda s: s["state"]["joint"].update(global_mean=[float("nan"), 0.0])),
        "'state' global_mean has 2 values; expected 2 finite ones",
    ),
    (
        broken(lambda s: s["state"]["joint"].update(global_mean=["a", "b"])),
        "'state.joint.global_mean' is not a list of numbers",
    ),
    (
        broken(lambda s: s["state"]["joint"].update(global_mean=[[1.0], [1.0, 2.0]])),
        "'state.joint.global_mean' is not a list of numbers",
    ),
    (
        broken(lambda s: s["state"]["joint"].update(global_mean={"a": 1})),
        "'state.joint.global_mean' is not a list of numbers",
    ),
    (
        broken(lambda s: s["state"]["joint"].update(global_std=[1.0, -2.0])),
        "'state' global_std is -2.0 and global_mean is -2.0 at index 1; expected no negative",
    ),
]


@pytest.mark.parametrize(("content", "message"), MALFORMED)
def test_malformed_statistics_are_refused_by_name(content, message):
    with pytest.raises(CheckpointError, match=f"^dataset statistics: .*{message}"):
        normalization_from_stats(content, space())


def test_a_range_upside_down_is_refused():
    changed = broken(lambda s: s["state"]["joint"].update(global_min=[3.0, -4.0]))
    with pytest.raises(
        CheckpointError, match=r"global_max is 2.0 and global_min is 3.0 at index 0"
    ):
        normalization_from_stats(changed, space("minmax"))
