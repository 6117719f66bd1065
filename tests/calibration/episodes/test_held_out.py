"""Held-out episodes reach a session as the policy itself would feed them, as long as asked."""

import numpy as np
import pytest

from memorywam_calibration.episodes.episodes import episodes_in
from memorywam_calibration.episodes.frames import frames_of
from memorywam_calibration.episodes.held_out import (
    check_instructions,
    held_out_episodes,
    instruct,
    one_after_another,
    session_frames,
)
from memorywam_export.episodes.drift import NUM_CHUNKS, remember
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.errors import InputError
from memorywam_runtime.policy import Policy


@pytest.fixture(scope="module")
def session(tiny_bundle):
    return open_bundle(tiny_bundle, num_threads=1)


@pytest.fixture(scope="module")
def episodes(session, recordings):
    manifest = session.manifest
    found = episodes_in(recordings, manifest.contract, manifest.contract_hash, seed=0)
    return held_out_episodes(found)


def test_a_session_is_fed_what_the_policy_feeds_it(session, episodes):
    noise = list(session_frames(episodes[0], session.manifest, seed=3))
    policy = Policy(session)
    policy.reset("random")
    wanted = []
    for frame, fed in zip(frames_of(episodes[0].recording, session.contract), noise, strict=True):
        policy.remember(frame.observations)
        wanted.append(policy.act(frame.state, fed.noise[1]))
    instruct(session, "random")
    before = None
    for fed, chunk in zip(noise, wanted, strict=True):
        remember(session, fed, before)
        found = session.manifest.normalization.action.raw(session.denoise(fed.noise[1]))
        assert np.array_equal(found, chunk)
        before = fed


def test_noise_is_of_the_seed_and_the_frame(session, episodes):
    first, again = (list(session_frames(episodes[0], session.manifest, seed=5)) for _ in range(2))
    other = list(session_frames(episodes[0], session.manifest, seed=6))
    assert all(np.array_equal(a.noise, b.noise) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].noise, other[0].noise)
    assert not np.array_equal(first[0].noise, first[1].noise)
    assert first[0].noise.shape[0] == NUM_CHUNKS


def test_one_memory_goes_on_over_episodes(session, episodes):
    count = 3 * sum(len(list(session_frames(one, session.manifest, 0))) for one in episodes)
    frames = list(one_after_another(episodes, session.manifest, count))
    assert len(frames) == count
    images = [frame.pixels.shape[2] for frame in frames]
    assert images[0] == 1
    assert set(images[1:]) == {session.contract.images_per_frame}
    instruct(session, "random")
    before = None
    for frame in frames[: session.manifest.memory.max_frames]:
        remember(session, frame, before)
        before = frame


def test_an_instruction_that_the_bundle_lacks_is_refused(session, episodes):
    check_instructions(episodes, session.manifest)
    check_instructions(episodes, session.manifest, "random")
    with pytest.raises(InputError, match="found the instruction 'sing'; the bundle holds 'random'"):
        check_instructions(episodes, session.manifest, "sing")


def test_nothing_held_out_is_refused(session, episodes):
    calibrating = [one for one in episodes if one.split == "calibration"]
    with pytest.raises(InputError, match="none held out"):
        held_out_episodes(calibrating)
