"""A policy that sees observations as they are made remembers what it would have in one go."""

import numpy as np
import pytest
from tests.fakes.bundles import differences, observations_at
from tests.fakes.driver import live, unchanged
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_runtime.errors import CapacityError, InputError
from memorywam_runtime.policy import Policy


@pytest.mark.parametrize("num_seen", [1, 3, 4])
def test_seeing_changes_nothing_but_the_time(a_rung, policy, num_seen):
    other = Policy(a_rung.session(3, 8, 64))
    other.reset("random")
    for _ in range(4):
        group = observations_at(policy.contract, policy.expected_steps())
        for observation in group[:num_seen]:
            policy.see(observation)
        assert policy.expected_steps() == tuple(o.step for o in group[num_seen:])
        assert policy.remember(group[num_seen:]) == other.remember(group)
        assert policy.expected_steps() == other.expected_steps()
        assert differences(policy.snapshot(), other.snapshot()) == []
    np.testing.assert_array_equal(live(policy, 2), live(other, 2))


def test_a_forgotten_group_may_be_observed_again(a_rung, policy):
    live(policy, 2)
    before = policy.snapshot()
    for observation in observations_at(policy.contract, (20, 24, 28), seed=5):
        policy.see(observation)
    policy.forget_seen()
    assert policy.expected_steps() == (20, 24, 28, 32)
    assert differences(policy.snapshot(), before) == []
    other = Policy(a_rung.session(3, 8, 64))
    other.reset("random")
    live(other, 2)
    np.testing.assert_array_equal(live(policy, 2), live(other, 2))


@pytest.mark.parametrize("step", [4, 12, 0, 7, 9])
def test_an_observation_off_the_grid_is_refused(policy, step):
    live(policy, 1)
    policy.see(*observations_at(policy.contract, (4,)))
    (wrong,) = observations_at(policy.contract, (step,))
    with pytest.raises(InputError, match=f"found an observation of step {step}; expected step 8:"):
        policy.see(wrong)
    assert policy.expected_steps() == (8, 12, 16)


def test_what_does_not_fit_is_refused_and_changes_nothing(policy):
    (first,) = observations_at(policy.contract, (0,))
    (no_cameras,) = observations_at(policy.contract, (0,))
    object.__setattr__(no_cameras, "images", {})
    unchanged(policy, r"found images of \[\]", lambda: policy.see(no_cameras))
    policy.see(first)
    with pytest.raises(InputError, match="step 4; frame 0 was seen whole: remember it first"):
        policy.see(*observations_at(policy.contract, (4,)))
    with pytest.raises(InputError, match=r"found 1 observations; frame 0 takes 0 more"):
        policy.remember([first])
    with pytest.raises(InputError, match="found 1 images of frame 0 seen"):
        policy.snapshot()
    policy.remember()
    unchanged(policy, r"found 0 observations; frame 1 takes 4, at", policy.remember)
    policy.see(*observations_at(policy.contract, (4,)))
    with pytest.raises(InputError, match=r"frame 1 takes 3 more, at steps \[8, 12, 16\]"):
        policy.remember()
    policy.remember(observations_at(policy.contract, (8, 12, 16)))
    assert policy.expected_steps() == (20, 24, 28, 32)


def test_a_full_memory_refuses_to_see(a_rung):
    policy = Policy(a_rung.session(2))
    policy.reset("random")
    live(policy, 2)
    (observation,) = observations_at(policy.contract, (20,))
    unchanged(policy, "capacity 2", lambda: policy.see(observation), error=CapacityError)


@pytest.mark.parametrize("convention", ["video sees the state", "frames stand alone"])
def test_the_state_of_the_last_observation_counts(convention):
    """Also where it was seen, and not given to `remember`."""
    if convention == "frames stand alone":
        model = random_model(contract_with("tiny-fastwam")).float()
    else:
        model = random_model(contract_with(proprio_in_video_context=True)).float()
    noise = np.zeros((model.contract.actions.horizon, 14))
    chunks = []
    for sees in (True, False):
        policy = Policy(eager_session(model, identity(model.contract)))
        for _ in range(3):
            group = observations_at(policy.contract, policy.expected_steps())
            if sees:
                for observation in group:
                    policy.see(observation)
            policy.remember(() if sees else group)
        chunks.append(policy.act(np.ones(14), noise))
    np.testing.assert_array_equal(chunks[0], chunks[1])
