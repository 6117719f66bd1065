"""Drift is seen where there is one, and told apart from what a rung errs by in one frame."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.checkpoints import FASTWAM, TINY

from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.eager.eager import eager_session, rewritten_model
from memorywam_export.episodes.drift import Frame, checkpoints, measured_drift, random_frames
from memorywam_export.episodes.drift_gate import trends
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import CacheWrite
from memorywam_runtime.session import Session

NUM_FRAMES = 70
LEAK = 1.001


def opened(dtype, *, preset="tiny", cache_write: CacheWrite = "in_place", max_frames=NUM_FRAMES):
    checkpoint = checkpoint_from_argument(f"random:{preset}:0")
    rewrites = NO_REWRITES if preset == "tiny-fastwam" else Rewrites(names=("rope-halves",))
    model = rewritten_model(checkpoint.contract, checkpoint.weights, dtype, rewrites)
    return eager_session(
        model, checkpoint.normalization, cache_write=cache_write, max_frames=max_frames
    )


class Altered(Session):
    """A session whose memory is not left alone."""

    def __init__(self, session, alter):
        self.alter = alter
        super().__init__(session.manifest, session.backend, session.engines)

    def remember(self, *args, **named):
        frame = super().remember(*args, **named)
        for array in self.calls.memory.values():
            self.alter(self.memory, array)
        return frame


def leak(memory, array):
    array *= LEAK


def round_newest_gist(memory, array):
    """As if gists were kept in 8 bits, of a range of 8."""
    place = memory.rows.gist(memory.gist_place(memory.num_frames - 1))
    rows = array[:, :, place : place + memory.rows.num_gists]
    rows[:] = np.round(rows * 16) / 16


@pytest.fixture(scope="module")
def curves():
    """Side by side: one truth for all."""
    rungs = {
        "sound": opened(torch.float32),
        "leaking": Altered(opened(torch.float32), leak),
        "rounding": Altered(opened(torch.float32), round_newest_gist),
    }
    found = measured_drift(
        opened(torch.float64),
        {name: ("fp32", session) for name, session in rungs.items()},
        random_frames(TINY, NUM_FRAMES, seed=0),
        checkpoints(NUM_FRAMES),
    )
    return {curve.name: curve for curve in found}


def judged(curve):
    return {trend.what: trend for trend in trends(curve)}


def test_a_sound_rung_holds(curves):
    curve = curves["sound"]
    assert [point.frames for point in curve.free] == [1, 2, 3, 5, 7, 10, 20, 30, 50, 70]
    assert set(judged(curve)) == {"anchors", "window", "gists", "actions"}
    assert all(trend.ok for trend in trends(curve))
    for point in (*curve.free, *curve.forced):
        errors = (point.latent, point.frame, point.actions, *point.parts.values())
        assert 0 < max(error.rel_rms for error in errors) < 1e-5
    assert len(curve.free[-1].layers) == 2 * TINY.num_layers
    assert not curve.forced[-1].layers
    worst = max(error.rel_rms for error in curve.free[0].parts.values())
    assert max(error.rel_rms for error in curve.free[0].layers.values()) <= worst


def test_both_sides_begin_alike(curves):
    """Before the first frame there is no memory to be forced."""
    for curve in curves.values():
        free, forced = curve.free[0], curve.forced[0]
        assert (free.latent, free.frame, free.actions) == (
            forced.latent,
            forced.frame,
            forced.actions,
        )


def test_a_slow_leak_fails_and_teacher_forcing_says_that_it_accumulates(curves):
    curve = curves["leaking"]
    found = judged(curve)
    assert not found["anchors"].ok
    assert not found["gists"].ok
    # The first frame has been multiplied 70 times, the second anchor 69 times.
    assert found["anchors"].last == pytest.approx(LEAK**70 - 1, rel=0.02)
    assert found["anchors"].growth == pytest.approx(10, rel=0.15)
    for point in curve.forced[1:]:
        assert point.frame.rel_rms == pytest.approx(LEAK - 1, rel=0.1)


def test_what_is_rounded_once_does_not_grow_and_shows_in_one_frame(curves):
    curve, sound = curves["rounding"], curves["sound"]
    found = judged(curve)
    assert found["gists"].ok
    assert found["gists"].last > 1e3 * judged(sound)["gists"].last
    assert curve.forced[-1].frame.rel_rms > 1e3 * sound.forced[-1].frame.rel_rms
    # Teacher forced, only the newest gist is rounded; free running, all of them.
    assert curve.forced[-1].actions.rel_rms < curve.free[-1].actions.rel_rms


@pytest.mark.parametrize(
    ("preset", "dtype", "cache_write"),
    [
        ("tiny", torch.float32, "copy"),
        ("tiny", torch.bfloat16, "in_place"),
        ("tiny", torch.float16, "in_place"),
        ("tiny-fastwam", torch.float32, "in_place"),
    ],
)
def test_forcing_leaves_a_rung_as_it_was(preset, dtype, cache_write):
    """In every type and form: each checkpoint more, and the last is still the same."""
    contract, count = (FASTWAM if preset == "tiny-fastwam" else TINY), 8

    def free(at):
        truth = opened(torch.float64, preset=preset, cache_write=cache_write)
        rung = opened(dtype, preset=preset, cache_write=cache_write)
        frames = random_frames(contract, count, seed=1)
        (curve,) = measured_drift(truth, {"rung": ("fp32", rung)}, frames, at)
        return curve.free[-1]

    every = free(range(1, count + 1))
    assert asdict(every) == asdict(free([count]))
    limit = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]
    assert 0 < every.actions.rel_rms < limit
    assert 0 < every.frame.rel_rms < limit


def test_frames_are_the_same_for_the_same_seed_and_place():
    def fields(frame: Frame):
        return [getattr(frame, name) for name in ("pixels", "state", "executed", "noise")]

    short, long = list(random_frames(TINY, 2, 3)), list(random_frames(TINY, 3, 3))
    for one, other in zip(short, long, strict=False):
        for first, second in zip(fields(one), fields(other), strict=True):
            np.testing.assert_array_equal(first, second)
    assert short[0].pixels.shape[2] == 1
    assert short[1].pixels.shape[2] == TINY.images_per_frame
    assert not np.array_equal(short[0].state, next(random_frames(TINY, 1, 4)).state)
    assert {frame.pixels.shape[2] for frame in random_frames(FASTWAM, 3, 0)} == {1}


@given(st.integers(1, 10**6))
def test_checkpoints_ascend_to_the_last_frame(num_frames):
    found = checkpoints(num_frames)
    assert list(found) == sorted(set(found))
    assert (found[0], found[-1]) == (1, num_frames)
    assert {mark for mark in (1, 10, 100, 1000) if mark <= num_frames} <= set(found)


def test_what_cannot_be_compared_is_refused():
    truth, short = opened(torch.float64, max_frames=8), opened(torch.float32, max_frames=9)
    with pytest.raises(InputError, match=r"short: found memory \(9,\); expected the truth's"):
        measured_drift(truth, {"short": ("fp32", short)}, random_frames(TINY, 8, 0), [8])
    with pytest.raises(InputError, match="found 2 frames; expected as many"):
        measured_drift(truth, {}, random_frames(TINY, 2, 0), [3])
