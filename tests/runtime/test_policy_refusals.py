"""A policy on every rung: what does not fit is refused, and memory stays as it was."""

import dataclasses

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import observations_at
from tests.fakes.driver import live, remember_at, unchanged
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_runtime.errors import CapacityError, InputError, MemorywamError
from memorywam_runtime.policy import Policy


@pytest.mark.parametrize("steps", [(), (0, 4), (0, 4, 8, 12)])
def test_the_first_frame_takes_one_observation(policy, steps):
    message = rf"^found {len(steps)} observations; frame 0 takes 1, at steps \[0\]$"
    unchanged(policy, message, remember_at(policy, *steps))


@pytest.mark.parametrize("steps", [(), (4,), (4, 8, 12), (4, 8, 12, 16, 20)])
def test_later_frames_take_four(policy, steps):
    live(policy, 1)
    message = rf"found {len(steps)} observations; frame 1 takes 4, at steps \[4, 8, 12, 16\]"
    unchanged(policy, message, remember_at(policy, *steps))


@pytest.mark.parametrize(
    "steps",
    [
        (4, 8, 8, 16),  # doubled
        (8, 4, 12, 16),  # out of order
        (5, 9, 13, 17),  # late
        (3, 7, 11, 15),  # early
        (4, 8, 12, 20),  # one missing
        (0, 4, 8, 12),  # the first again
        (20, 24, 28, 32),  # a whole group missing
    ],
)
def test_observations_off_the_grid_are_refused(policy, steps):
    live(policy, 1)
    message = (
        rf"found observations of steps \[{', '.join(map(str, steps))}\]; expected "
        r"\[4, 8, 12, 16\], in this order: a frame that is late, early, doubled or missing"
    )
    unchanged(policy, message, remember_at(policy, *steps))


def test_the_first_observation_is_at_step_0(policy):
    unchanged(policy, r"found observations of steps \[4\]; expected \[0\]", remember_at(policy, 4))


def test_a_group_given_twice_is_refused(policy):
    live(policy, 2)
    unchanged(policy, r"expected \[20, 24, 28, 32\]", remember_at(policy, 4, 8, 12, 16))


def with_images(policy, index, **images):
    group = observations_at(policy.contract, policy.expected_steps())
    changed = {name: image for name, image in {**group[index].images, **images}.items()
               if image is not None}  # fmt: skip
    group[index] = dataclasses.replace(group[index], images=changed)
    return lambda: policy.remember(group)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"head": None}, r"found images of \['left_wrist', 'right_wrist'\]; expected exactly"),
        ({"tail": np.zeros((4, 4, 3), np.uint8)}, "left_wrist', 'right_wrist', 'tail'"),
        ({"head": np.zeros((4, 4, 3), np.float32)}, r"camera 'head': found float32 \[4, 4, 3\]"),
        ({"head": np.zeros((4, 4), np.uint8)}, r"camera 'head': found uint8 \[4, 4\]"),
        ({"head": np.zeros((0, 4, 3), np.uint8)}, r"camera 'head': found uint8 \[0, 4, 3\]"),
    ],
)
@pytest.mark.parametrize("index", [0, 3])
def test_cameras_that_do_not_fit_are_refused(policy, images, message, index):
    live(policy, 1)
    unchanged(policy, message, with_images(policy, index, **images))


@pytest.mark.parametrize("num_frames", [0, 1])
def test_executed_actions_are_refused_where_none_are_kept(policy, num_frames):
    if num_frames:
        live(policy, num_frames)
    group = observations_at(policy.contract, policy.expected_steps())
    message = (
        r"found executed actions; this contract keeps none here \(conventions.action_history\)"
    )
    unchanged(policy, message, lambda: policy.remember(group, np.zeros((16, 14))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_holds_the_arms(policy, value):
    live(policy, 1)
    state = np.zeros(14)
    state[3] = value
    message = rf"joint state: found {value} at index \[3\]; .* hold the arms until they answer"
    unchanged(policy, message, lambda: policy.act(state))


@pytest.mark.parametrize("shape", [(), (1,), (13,), (15,), (1, 14)])
def test_a_state_of_another_size_is_refused(policy, shape):
    live(policy, 1)
    message = r"joint state: found \[.*\]; expected \[14\]"
    unchanged(policy, message, lambda: policy.act(np.zeros(shape)))


@pytest.mark.parametrize("shape", [(14,), (16, 1), (1, 16, 14)])
def test_noise_of_another_shape_is_refused(policy, shape):
    live(policy, 1)
    message = r"noise: found shape \[.*\]; expected \[16, 14\]"
    unchanged(policy, message, lambda: policy.act(np.zeros(14), np.zeros(shape)))


def test_before_the_first_frame_there_is_nothing_to_act_on(policy):
    unchanged(policy, "nothing to act on: no frame since reset", lambda: policy.act(np.zeros(14)))
    # And the noise of the first chunk has not been spent.
    found = live(policy, 1)
    policy.reset("random")
    np.testing.assert_array_equal(live(policy, 1), found)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"noise_state": {"bit_generator": "MT19937"}},
        lambda s: {"noise_state": {}},
        lambda s: {"session": msgspec.structs.replace(s.session, contract_hash="x")},
        lambda s: {"session": msgspec.structs.replace(s.session, arrays={})},
    ],
)
def test_a_snapshot_that_does_not_fit_changes_nothing(policy, change):
    live(policy, 1)
    snapshot = policy.snapshot()
    live(policy, 1)
    bad = msgspec.structs.replace(snapshot, **change(snapshot))
    unchanged(policy, "found a snapshot|snapshot: missing", lambda: policy.restore(bad))


def test_an_unknown_instruction_changes_nothing(policy):
    live(policy, 2)
    message = r"does not hold the instruction 'fly'; it holds 'random'; add it with `memorywam"
    unchanged(policy, message, lambda: policy.reset("fly"))
    for keep_memory in (True, False):
        call = lambda keep=keep_memory: policy.set_instruction("fly", keep_memory=keep)  # noqa: E731
        unchanged(policy, message, call)


@pytest.mark.parametrize("on_full", ["refuse", "stop"])
def test_a_full_memory_refuses_and_stays(a_rung, on_full):
    policy = Policy(a_rung.session(2, on_full=on_full))
    policy.reset("random")
    live(policy, 2)
    message = rf"memory is full: 2 frames remembered, capacity 2, policy '{on_full}'"
    steps = policy.expected_steps()
    unchanged(policy, message, remember_at(policy, *steps), error=CapacityError)
    assert policy.expected_steps() == steps


@pytest.mark.parametrize(("max_steps", "fits"), [(0, True), (15, True), (31, True), (32, False)])
def test_an_episode_too_long_is_refused_before_it_starts(a_rung, max_steps, fits):
    policy = Policy(a_rung.session(2))
    policy.reset("random")
    live(policy, 1)
    if fits:
        policy.reset("random", max_steps=max_steps)
        assert policy.num_frames == 0
        return
    message = r"32 steps needs 3 frames; the bundle holds 2 and its policy is 'refuse': export with"
    call = lambda: policy.reset("random", max_steps=max_steps)  # noqa: E731
    unchanged(policy, message, call, error=CapacityError)


def test_actions_that_are_not_finite_are_never_given_out(policy):
    live(policy, 1)
    for array in policy.session.calls.memory.values():
        array[:, :, 0] = np.nan
    with pytest.raises(
        MemorywamError, match=r"after frame 0 has actions that are not finite; hold"
    ):
        policy.act(np.zeros(14))
    policy.reset("random")
    assert np.isfinite(live(policy, 3)).all()


def test_a_session_without_a_bundle_has_no_instructions():
    model = random_model(contract_with())
    policy = Policy(eager_session(model, identity(model.contract)))
    with pytest.raises(InputError, match="this session has no bundle to read instructions from"):
        policy.reset("random")


def history_policy(**conventions):
    """Return a policy whose contract keeps executed actions, with an empty prompt."""
    model = random_model(contract_with(action_history=True, **conventions)).float()
    return Policy(eager_session(model, identity(model.contract), max_frames=2))


@pytest.mark.parametrize(
    ("executed", "message"),
    [
        (None, "found no executed actions; this contract needs them"),
        (np.zeros((16, 13)), r"executed actions: found \[16, 13\]; expected \[16, 14\]"),
        (np.zeros(14), r"executed actions: found \[14\]; expected \[16, 14\]"),
        (np.full((16, 14), np.nan), r"executed actions: found nan at index \[0, 0\]"),
    ],
)
def test_executed_actions_are_needed_where_they_are_kept(executed, message):
    policy = history_policy()
    live(policy, 1)
    group = observations_at(policy.contract, policy.expected_steps())
    unchanged(policy, message, lambda: policy.remember(group, executed))


def test_a_refused_frame_leaves_no_state_behind():
    """Where the video sees the state, a full memory must not have taken the new one over."""
    policy = history_policy(proprio_in_video_context=True)
    live(policy, 1)
    chunk = np.zeros((16, 14))
    policy.remember(observations_at(policy.contract, policy.expected_steps()), chunk)
    policy.act(np.zeros(14))
    group = observations_at(policy.contract, policy.expected_steps())
    unchanged(policy, "memory is full", lambda: policy.remember(group, chunk), error=CapacityError)
    bad = dataclasses.replace(group[-1], state=np.full(14, np.nan))
    call = lambda: policy.remember([*group[:-1], bad], chunk)  # noqa: E731
    unchanged(policy, "joint state: found nan at index", call)
