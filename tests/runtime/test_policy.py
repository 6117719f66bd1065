"""A policy on every rung: its grid, noise, snapshots, instructions and units."""

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import copy_of, differences, observations_at, rung
from tests.fakes.driver import live
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_export.text.prompts import add_prompt
from memorywam_runtime.errors import InputError
from memorywam_runtime.normalization import Affine, Normalization
from memorywam_runtime.policy import Policy
from memorywam_runtime.session import Session


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
        acts = []
        for _ in range(3):
            group = observations_at(policy.contract, policy.expected_steps())
            policy.remember(group)
            acts += [policy.act(group[-1].state, noise) for _ in range(num_acts)]
        chunks.append(acts[-1])
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
    own = ("instruction", "text_bias")
    assert all(name.startswith("action_state.") or name in own for name in rest)
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


def test_a_memory_may_drop_its_oldest_gists(a_rung):
    policy = Policy(a_rung.session(2, on_full="drop-oldest-gist"))
    policy.reset("random", max_steps=10_000)
    assert np.isfinite(live(policy, 5)).all()
    assert policy.session.memory.num_dropped_gists == 3


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
