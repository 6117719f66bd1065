"""How a chunk in slices ends, fails and is refused, and the prefix that it begins with."""

import functools

import numpy as np
import pytest
from tests.fakes.bundles import differences
from tests.fakes.denoising import NUM_STEPS, Life, eager, interleaved
from tests.fakes.driver import Driver, unchanged

from memorywam_runtime.errors import DeviceError, InputError, StaleChunkError


def test_a_step_that_fails_leaves_memory_and_may_be_made_again(life, monkeypatch):
    life.begin(6)
    start, number, noise = life.session.snapshot(), life.number, life.chunk()
    wanted = life.session.denoise(noise, NUM_STEPS)
    chunk = life.session.begin_chunk(noise, NUM_STEPS)
    chunk.advance()
    life.frame()
    first, _, *rest = life.session.calls.slices(NUM_STEPS)

    def fails():
        raise DeviceError("found a fault")

    with monkeypatch.context() as patch:
        patch.setattr(life.session.calls, "slices", lambda _: [first, fails, *rest])
        with pytest.raises(DeviceError):
            chunk.advance()
    after = life.memory()
    while not chunk.advance():
        pass
    np.testing.assert_array_equal(chunk.actions(), wanted)
    life.session.restore(start)
    life.number = number + 1
    life.frame()
    assert differences(life.memory(), after) == []


ENDS = [
    ("the session was reset", lambda life, _: life.session.reset(life.text)),
    ("the instruction was changed", lambda life, _: life.session.set_text(life.text)),
    ("a snapshot was restored", lambda life, start: life.session.restore(start)),
    ("another chunk was begun", lambda life, _: life.session.begin_chunk(life.chunk())),
]


@pytest.mark.parametrize(("why", "end"), ENDS)
def test_what_a_chunk_was_begun_for_may_end_before_it(life, why, end):
    life.begin(5)
    start = life.session.snapshot()
    chunk = life.session.begin_chunk(life.chunk())
    chunk.advance()
    life.frame()
    assert not chunk.is_stale
    end(life, start)
    assert chunk.is_stale
    for call in (chunk.advance, chunk.actions):
        with pytest.raises(StaleChunkError, match=f"found a chunk with 3 of 4 steps .* {why}; exp"):
            call()


def test_a_chunk_that_was_given_up_says_so(life):
    life.begin(1)
    chunk = life.session.begin_chunk(life.chunk())
    chunk.give_up()
    assert chunk.is_stale
    with pytest.raises(StaleChunkError, match="its owner"):
        chunk.advance()


def test_a_chunk_that_is_done_stays_so(life):
    life.begin(1)
    chunk = life.session.begin_chunk(life.chunk(), 2)
    with pytest.raises(InputError, match=r"found a chunk with 2 of 2 steps left; .* advance"):
        chunk.actions()
    assert [chunk.advance(), chunk.advance(), chunk.advance()] == [False, True, True]
    wanted = chunk.actions()
    chunk.actions()[:] = 0
    chunk.give_up()
    life.session.begin_chunk(life.chunk()).advance()
    life.session.reset()
    assert not chunk.is_stale
    np.testing.assert_array_equal(chunk.actions(), wanted)


def test_what_is_refused_does_not_end_the_chunk_under_way(life):
    session = life.session
    unchanged(session, "no frame since reset", lambda: session.begin_chunk(np.zeros((16, 14))))
    life.begin(4)
    noise = life.chunk()
    wanted = session.denoise(noise, NUM_STEPS)
    chunk = session.begin_chunk(noise, NUM_STEPS)
    chunk.advance()
    for message, asked in (
        (r"tensor 'x' .*expected float32 \[1, 16, 14\]", {"noise": np.zeros((16, 13))}),
        ("found 0 denoising steps", {"noise": noise, "num_steps": 0}),
        (r"prefix: found shape \[17, 14\]; expected \[0 to 16, 14\]", prefix(17)),
        (r"prefix: found shape \[2, 13\]", {"noise": noise, "prefix": np.zeros((2, 13))}),
        (r"prefix: found shape \[14\]", {"noise": noise, "prefix": np.zeros(14)}),
        (r"prefix: found nan at \[1, 3\]", prefix(2, np.nan)),
        (r"prefix: found inf at \[1, 3\]", prefix(2, np.inf)),
    ):
        call = functools.partial(session.begin_chunk, **{"noise": noise, **asked})
        unchanged(session, message, call)
    while not chunk.advance():
        pass
    np.testing.assert_array_equal(chunk.actions(), wanted)


def prefix(count, bad=0.5):
    values = np.full((count, 14), 0.5)
    values[1, 3] = bad
    return {"prefix": values}


def test_a_chunk_begins_with_its_prefix(life):
    life.begin(4)
    noise, given = life.chunk(), np.random.default_rng(3).standard_normal((16, 14))
    free = life.session.denoise(noise, NUM_STEPS)
    found = {}
    for count in (0, 1, 5, 16):
        found[count], _ = interleaved(life, noise, [], prefix=given[:count])
        np.testing.assert_array_equal(found[count][:count], given[:count].astype(np.float32))
    np.testing.assert_array_equal(found[0], free)
    other, _ = interleaved(life, noise, [], prefix=given[:5] + 1)
    for one, two in ((found[5], free), (found[5], other), (found[1], found[5])):
        assert np.abs(one[5:] - two[5:]).max() > 1e-4
    assert found[5].dtype == np.float32


def test_a_prefix_and_updates_together(life):
    life.begin(6)
    noise, given = life.chunk(), np.random.default_rng(3).standard_normal((5, 14))
    wanted, _ = interleaved(life, noise, [], prefix=given)
    between = [["act"], ["frame"], ["frame", "act"], ["frame", "state"]]
    found, _ = interleaved(life, noise, between, prefix=given)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("case", ["in place", "single frame"])
def test_before_each_step_the_prefix_is_as_noisy_as_the_chunk(case, monkeypatch):
    """By the timestep that the step itself is told, at both shifts: 1 and 5."""
    life = Life(eager(case))
    life.begin(2)
    session, noise, given = life.session, life.chunk(), life.draw(3, 14)
    slices, seen = session.calls.slices(NUM_STEPS), []

    def run(step):
        before = session.calls.actions(step)[0].copy()
        slices[step]()
        seen.append((before, session.calls.actions(step + 1)[0].copy()))

    watched = [functools.partial(run, step) for step in range(NUM_STEPS)]
    monkeypatch.setattr(session.calls, "slices", lambda _: watched)
    found, _ = interleaved(life, noise, [], prefix=given)
    x = noise.astype(np.float32)
    for step, (before, after) in enumerate(seen):
        name = f"timestep.{NUM_STEPS}.{step}"
        sigma = session.buffers._constant[name].item() / 1000
        x[:3] = (1 - sigma) * given + sigma * noise[:3]
        np.testing.assert_allclose(before, x, rtol=0, atol=1e-6)
        x = after
    np.testing.assert_array_equal(found[3:], x[3:])
    assert len(seen) == NUM_STEPS


def test_the_time_of_every_step_is_kept(life):
    life.begin(1)
    life.session.timings.restart()
    interleaved(life, life.chunk(), [])
    assert len(life.session.timings.milliseconds("advance")) == NUM_STEPS
    assert len(life.session.timings.milliseconds("action_step")) == NUM_STEPS


def test_a_driver_may_mix_both_ways(a_rung, text):
    """`denoise` after slices, over many frames, is bit for bit what it is without."""
    plain, mixed = (Driver(a_rung.session(3, 8, 64), text) for _ in range(2))
    for frame in range(9):
        plain.remember(frame)
        mixed.remember(frame)
        if frame:
            chunk = mixed.session.begin_chunk(np.zeros((16, 14)))
            while not chunk.advance():
                pass
        np.testing.assert_array_equal(plain.act(frame), mixed.act(frame))
