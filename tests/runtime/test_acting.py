"""A policy's chunk in slices: its noise, units, prefix, and what makes it stale."""

import itertools

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import differences, observations_at
from tests.fakes.driver import live, unchanged
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_runtime.errors import InputError, MemorywamError, StaleChunkError
from memorywam_runtime.normalization import Affine, Normalization
from memorywam_runtime.policy import Policy
from memorywam_runtime.session import Session

STATE = np.linspace(-1, 1, 14)


def finished(acting):
    """Advance to the end; return the chunk."""
    for left in range(acting.num_left, 0, -1):
        assert acting.num_left == left
        assert acting.advance() is (left == 1)
    return acting.chunk()


def remember(policy):
    policy.remember(observations_at(policy.contract, policy.expected_steps()))


def test_run_to_its_end_it_is_act(a_rung, policy):
    """Also the noise of the next one, whichever way each is made."""
    other = Policy(a_rung.session(3, 8, 64))
    other.reset("random")
    for number in range(6):
        remember(policy)
        remember(other)
        wanted = policy.act(STATE)
        found = finished(other.begin_act(STATE)) if number % 3 else other.act(STATE)
        assert found.tobytes() == wanted.tobytes()
        assert found.dtype == wanted.dtype
    assert differences(policy.snapshot(), other.snapshot()) == []


def test_what_is_remembered_in_between_is_not_acted_on(policy):
    live(policy, 5)
    noise = np.random.default_rng(4).standard_normal((16, 14))
    wanted = policy.act(STATE, noise)
    acting = policy.begin_act(STATE, noise)
    assert acting.frame == 4
    acting.advance()
    first, *rest = observations_at(policy.contract, policy.expected_steps())
    policy.see(first)
    acting.advance()
    policy.remember(rest)
    assert policy.num_frames == 6
    np.testing.assert_array_equal(finished(acting), wanted)
    assert np.abs(policy.act(STATE, noise) - wanted).max() > 1e-4


def with_units(model, scale, offset):
    """A policy whose actions are in units of their own."""
    plain = identity(model.contract)
    size = model.contract.actions.action_dim
    affine = Affine(scale=(scale,) * size, offset=(offset,) * size, clamp=5.0)
    changed = Normalization(state=plain.state, action=affine)
    session = eager_session(model, plain)
    manifest = msgspec.structs.replace(session.manifest, normalization=changed)
    policy = Policy(Session(manifest, session.backend, session.engines))
    policy.remember(observations_at(policy.contract, (0,)))
    return policy


def test_a_prefix_is_in_the_robots_units():
    model, noise = random_model(contract_with()).float(), np.ones((16, 14))
    given = np.random.default_rng(0).uniform(-1, 1, (4, 14))
    plain, scaled = with_units(model, 1.0, 0.0), with_units(model, 4.0, 0.5)
    wanted = finished(plain.begin_act(STATE, noise, prefix=4.0 * given + 0.5))
    found = finished(scaled.begin_act(STATE, noise, prefix=given))
    np.testing.assert_allclose(4.0 * found + 0.5, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[:4], given)
    free = scaled.act(STATE, noise)
    assert np.abs(found[4:] - free[4:]).max() > 1e-4
    for none in (None, given[:0]):
        np.testing.assert_array_equal(finished(scaled.begin_act(STATE, noise, prefix=none)), free)


def test_a_prefix_that_the_model_sees_clamped_is_executed_as_it_was_sent():
    model, noise = random_model(contract_with()).float(), np.ones((16, 14))
    policy = with_units(model, 4.0, 0.0)
    far, clamped = np.full((2, 14), 3.0), np.full((2, 14), 1.25)
    chunks = [finished(policy.begin_act(STATE, noise, prefix=one)) for one in (far, clamped)]
    np.testing.assert_array_equal(chunks[0][:2], far)
    np.testing.assert_array_equal(chunks[0][2:], chunks[1][2:])


BAD = [
    ("prefix: found shape \\[17, 14\\]", {"prefix": np.zeros((17, 14))}),
    ("prefix: found shape \\[3, 2\\]", {"prefix": np.zeros((3, 2))}),
    ("prefix: found nan at \\[0, 0\\]", {"prefix": np.full((1, 14), np.nan)}),
    ("noise: found shape \\[16\\]", {"noise": np.zeros(16)}),
    ("joint state: found \\[3\\]", {"state": np.zeros(3)}),
]


@pytest.mark.parametrize(("message", "given"), BAD)
def test_what_is_refused_draws_no_noise_and_ends_no_chunk(policy, message, given):
    live(policy, 2)
    noise = np.ones((16, 14))
    wanted = policy.act(STATE, noise)
    acting = policy.begin_act(STATE, noise)
    acting.advance()
    unchanged(policy, message, lambda: policy.begin_act(**{"state": STATE, **given}))
    np.testing.assert_array_equal(finished(acting), wanted)


def test_there_must_be_a_frame(policy):
    unchanged(policy, "no frame since reset", lambda: policy.begin_act(STATE))


ENDS = [
    ("reset", lambda policy: policy.reset("random")),
    ("instruction", lambda policy: policy.set_instruction("random", keep_memory=True)),
    ("reset", lambda policy: policy.set_instruction("random", keep_memory=False)),
    ("snapshot", lambda policy: policy.restore(policy.snapshot())),
    ("another chunk", lambda policy: policy.begin_act(STATE)),
]


@pytest.mark.parametrize(("why", "end"), ENDS)
def test_what_it_was_begun_for_may_end_before_it(policy, why, end):
    live(policy, 2)
    acting = policy.begin_act(STATE)
    acting.advance()
    assert not acting.is_stale
    end(policy)
    assert acting.is_stale
    for call in (acting.advance, acting.chunk):
        with pytest.raises(StaleChunkError, match=why):
            call()


def test_it_may_be_given_up(policy):
    live(policy, 1)
    acting = policy.begin_act(STATE)
    acting.give_up()
    assert acting.is_stale


def test_there_is_no_chunk_before_its_last_step(policy):
    live(policy, 1)
    acting = policy.begin_act(STATE)
    with pytest.raises(InputError, match="4 of 4 steps left"):
        acting.chunk()


def test_actions_that_are_not_finite_are_not_given_out(policy, monkeypatch):
    live(policy, 2)
    acting = policy.begin_act(STATE)
    while not acting.advance():
        pass
    bad = np.full((16, 14), np.nan, np.float32)
    monkeypatch.setattr(acting._denoising, "actions", lambda: bad)
    with pytest.raises(MemorywamError, match="the chunk after frame 1 has actions that are not"):
        acting.chunk()


@pytest.mark.parametrize("kind", ["anchor", "window", "gist"])
def test_one_number_of_memory_that_is_not_finite_spoils_the_next_chunk(policy, kind):
    """In whatever tensor it is: actions are looked at, and show what memory holds."""
    live(policy, 14)
    session, memory = policy.session, policy.session.memory
    row = {
        "anchor": memory.rows.slot(0),
        "window": memory.rows.slot(memory.slot_of(12)),
        "gist": memory.rows.gist(memory.gist_place(5)),
    }[kind]
    good = session.snapshot()
    names = [name for name in good.arrays if name.startswith("memory.")]
    for name, bad in itertools.product(names, (np.nan, np.inf)):
        spoilt = good.arrays[name].copy()
        spoilt[..., row, 0] = bad
        session.restore(msgspec.structs.replace(good, arrays={**good.arrays, name: spoilt}))
        with pytest.raises(MemorywamError, match="actions that are not finite"):
            policy.act(STATE)
    session.restore(good)
    assert np.isfinite(policy.act(STATE)).all()
