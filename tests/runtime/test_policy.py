"""A policy on every rung: what does not fit the grid is refused, and memory stays as it was."""

import dataclasses

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import copy_of, differences, observations_at, rung
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager import eager_session
from memorywam_export.prompts import add_prompt
from memorywam_runtime.errors import CapacityError, InputError, MemorywamError
from memorywam_runtime.normalization import Affine, Normalization
from memorywam_runtime.policy import Policy
from memorywam_runtime.session import Session


@pytest.fixture
def policy(a_rung):
    policy = Policy(a_rung.session(3, 8, 64))
    policy.reset("random")
    return policy


def live(policy, num_frames, seed=0):
    """Remember and act for some frames; return the chunks."""
    chunks = []
    for _ in range(num_frames):
        group = observations_at(policy.contract, policy.expected_steps(), seed)
        policy.remember(group)
        chunks.append(policy.act(group[-1].state))
    return np.stack(chunks)


def unchanged(policy, message, call, *, error=InputError):
    before = policy.snapshot()
    with pytest.raises(error, match=message):
        call()
    assert differences(policy.snapshot(), before) == []


def remember_at(policy, *steps):
    return lambda: policy.remember(observations_at(policy.contract, steps))


def test_the_grid_is_that_of_training(policy):
    assert policy.expected_steps() == (0,)
    live(policy, 1)
    assert policy.expected_steps() == (4, 8, 12, 16)
    live(policy, 1)
    assert policy.expected_steps() == (20, 24, 28, 32)
    assert policy.num_frames == 2
    assert policy.instruction == "random"


def test_frames_are_counted(policy):
    for frame in range(3):
        group = observations_at(policy.contract, policy.expected_steps())
        assert policy.remember(group) == frame


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


def test_acting_twice_draws_new_noise_and_changes_no_memory(policy):
    live(policy, 2)
    memory = policy.session.snapshot().memory
    state, noise = np.ones(14), np.random.default_rng(5).standard_normal((16, 14))
    first, second = policy.act(state), policy.act(state)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(policy.act(state, noise), policy.act(state, noise))
    assert policy.session.snapshot().memory == memory
    assert policy.expected_steps() == (20, 24, 28, 32)


def test_more_acts_do_not_reach_what_follows(a_rung):
    once, often = Policy(a_rung.session()), Policy(a_rung.session())
    noise = np.random.default_rng(1).standard_normal((16, 14))
    chunks = []
    for policy, num_acts in ((once, 1), (often, 3)):
        policy.reset("random")
        for _ in range(3):
            group = observations_at(policy.contract, policy.expected_steps())
            policy.remember(group)
            for _ in range(num_acts):
                chunk = policy.act(group[-1].state, noise)
        chunks.append(chunk)
    np.testing.assert_array_equal(chunks[0], chunks[1])


def test_a_seed_decides_the_noise(policy):
    found = []
    for seed in (3, 3, 4):
        policy.reset("random", seed=seed)
        found.append(live(policy, 2))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_a_reset_is_bit_equal_to_a_new_policy(a_rung, policy):
    live(policy, 5, seed=7)
    policy.reset("random")
    new = Policy(a_rung.session(3, 8, 64))
    new.reset("random")
    assert differences(policy.snapshot(), new.snapshot()) == []
    np.testing.assert_array_equal(live(policy, 5), live(new, 5))
    assert differences(policy.snapshot(), new.snapshot()) == []


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_restored_policy_goes_on_bit_for_bit(a_rung, policy, cut):
    live(policy, cut)
    snapshot = policy.snapshot()
    wanted = live(policy, 6 - cut)
    other = Policy(a_rung.session(3, 8, 64))
    other.reset("random", seed=8)
    live(other, 2, seed=3)
    for restored in (policy, other, Policy(a_rung.session(3, 8, 64))):
        restored.restore(snapshot)
        assert differences(restored.snapshot(), snapshot) == []
        assert restored.instruction == "random"
        np.testing.assert_array_equal(live(restored, 6 - cut), wanted)


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


@pytest.fixture(scope="module")
def two_prompts(tiny_bundle, tmp_path_factory):
    bundle = copy_of(tiny_bundle, tmp_path_factory.mktemp("prompts"))
    rows = np.random.default_rng(0).standard_normal((3, 10)).astype(np.float32)
    add_prompt(bundle, "stack the cups", rows, "test")
    return rung("ort", bundle)


def test_an_instruction_may_change_with_memory_kept(two_prompts):
    policy = Policy(two_prompts.session())
    policy.reset("random")
    live(policy, 3)
    before = policy.snapshot()
    noise = np.zeros((16, 14))
    old = policy.act(np.zeros(14), noise)
    policy.set_instruction("stack the cups", keep_memory=True)
    assert policy.instruction == "stack the cups"
    assert policy.num_frames == 3
    assert policy.expected_steps() == (36, 40, 44, 48)
    changed = differences(policy.snapshot(), before)
    texts = {name for name in changed if "_text." in name}
    assert texts == {s.name for s in policy.session.manifest.graphs["prompt_kv"].outputs}
    # The one act in between has moved its own rows and the state's, and nothing else.
    rest = set(changed) - texts - set(policy.session.calls.memory)
    assert all(name.startswith("action_state.") or name == "instruction" for name in rest)
    assert np.abs(policy.act(np.zeros(14), noise) - old).max() > 1e-4


def test_an_instruction_may_change_with_memory_forgotten(two_prompts):
    policy, new = Policy(two_prompts.session()), Policy(two_prompts.session())
    policy.reset("random", seed=2)
    live(policy, 3)
    policy.set_instruction("stack the cups", keep_memory=False)
    new.reset("stack the cups", seed=0)
    assert policy.expected_steps() == (0,)
    assert differences(policy.session.snapshot(), new.session.snapshot()) == []
    # The noise goes on: the same instruction twice must not repeat the same chunk.
    assert differences(policy.snapshot(), new.snapshot()) == ["noise_state"]


@pytest.mark.parametrize("on_full", ["refuse", "stop"])
def test_a_full_memory_refuses_and_stays(a_rung, on_full):
    policy = Policy(a_rung.session(2, on_full=on_full))
    policy.reset("random")
    live(policy, 2)
    message = rf"memory is full: 2 frames remembered, capacity 2, policy '{on_full}'"
    steps = policy.expected_steps()
    unchanged(policy, message, remember_at(policy, *steps), error=CapacityError)
    assert policy.expected_steps() == steps


def test_a_memory_may_drop_its_oldest_gists(a_rung):
    policy = Policy(a_rung.session(2, on_full="drop-oldest-gist"))
    policy.reset("random", max_steps=10_000)
    assert np.isfinite(live(policy, 5)).all()
    assert policy.session.memory.num_dropped_gists == 3


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


def test_units_are_the_robots(a_rung):
    """State in and actions out pass through the bundle's statistics, and only there."""
    actions = a_rung.manifest.contract.actions
    scale = tuple(np.linspace(0.5, 2, actions.action_dim).tolist())
    offset = tuple(np.linspace(-1, 1, actions.action_dim).tolist())
    units = Affine(scale=scale, offset=offset, clamp=5.0)
    manifest = msgspec.structs.replace(
        a_rung.manifest, normalization=Normalization(state=units, action=units)
    )
    session = Session(manifest, a_rung.backend, a_rung.engines, root=a_rung.root)
    policy, plain = Policy(session), Policy(a_rung.session())
    noise = np.random.default_rng(0).standard_normal((16, 14))
    state = np.random.default_rng(1).standard_normal(14)
    chunks = []
    for each, given in ((policy, state), (plain, units.normalized(state, "state"))):
        each.reset("random")
        each.remember(observations_at(each.contract, (0,)))
        chunks.append(each.act(given, noise))
    assert chunks[0].dtype == np.float64
    np.testing.assert_allclose(chunks[0] * scale + offset, chunks[1], rtol=0, atol=1e-12)


def test_num_steps_may_differ_from_the_contracts(a_rung):
    noise, chunks = np.ones((16, 14)), []
    for num_steps in (None, 4, 1):
        policy = Policy(a_rung.session(), num_steps=num_steps)
        policy.reset("random")
        policy.remember(observations_at(policy.contract, (0,)))
        chunks.append(policy.act(np.zeros(14), noise))
    np.testing.assert_array_equal(chunks[0], chunks[1])  # tiny's contract says 4
    assert np.abs(chunks[0] - chunks[2]).max() > 1e-4


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


def test_observations_that_stand_alone_may_come_at_any_step():
    model = random_model(contract_with("tiny-fastwam")).float()
    policy = Policy(eager_session(model, identity(model.contract)))
    noise = np.zeros((32, 14))[: model.contract.actions.horizon]
    chunks = []
    for step in (0, 7, 7, 3):
        (one,) = observations_at(policy.contract, (step,))
        policy.remember([one])
        chunks.append(policy.act(one.state, noise))
    np.testing.assert_array_equal(chunks[1], chunks[2])
    assert np.abs(chunks[2] - chunks[3]).max() > 1e-4
    group = observations_at(policy.contract, (0, 4))
    with pytest.raises(InputError, match="found 2 observations; frame 1 takes 1"):
        policy.remember(group)
