"""A session on every rung: reset, what it refuses, and what each convention makes of a frame."""

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tests.fakes.bundles import differences, rung
from tests.fakes.driver import Driver, unchanged
from tests.fakes.episodes import contract_with, identity, random_episode, random_model
from tests.fakes.velocities import oracle_velocities

from memorywam_export.eager.eager import eager_session
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.errors import CapacityError
from memorywam_runtime.memory import Visible


@pytest.mark.parametrize("before", [1, 2, 7])
def test_after_a_reset_a_session_is_bit_equal_to_a_new_one(a_rung, text, before):
    used = Driver(a_rung.session(2, 5, 64), text, seed=9)
    used.frames(before)
    used.session.reset(text)
    new = Driver(a_rung.session(2, 5, 64), text)
    assert differences(used.session.snapshot(), new.session.snapshot()) == []
    again = Driver(used.session, text)
    assert again.frames(7).tobytes() == new.frames(7).tobytes()
    assert differences(used.session.snapshot(), new.session.snapshot()) == []


def test_a_reset_zeroes_every_buffer(driver):
    driver.frames(3)
    driver.session.reset()
    for array in (driver.session.buffers._arena, *driver.session.buffers._fixed.values()):
        assert not np.asarray(array).any()


PROGRAM = """
import hashlib, sys
import numpy as np
from memorywam_runtime import open_bundle
from memorywam_runtime.bundle import read_prompt
session = open_bundle(sys.argv[1], num_threads=1, spin=False)
session.reset(read_prompt(session.root, session.manifest, "random"))
for frame in range(3):
    rng = np.random.default_rng((0, frame))
    pixels = rng.uniform(-1, 1, (1, 3, 4 if frame else 1, 48, 32))
    session.remember(pixels.astype(np.float32))
    rng = np.random.default_rng((0, frame, 1))
    session.set_state(rng.standard_normal(14))
    chunk = session.denoise(rng.standard_normal((16, 14)))
print(hashlib.sha256(chunk.tobytes()).hexdigest())
assert not {"torch", "onnx", "safetensors"} & set(sys.modules)
"""


def test_after_a_reset_a_session_is_bit_equal_to_another_process(tiny_bundle):
    loaded = rung("ort in place", tiny_bundle)
    text = read_prompt(tiny_bundle, loaded.manifest, "random")
    used = Driver(loaded.session(), text, seed=3)
    used.frames(5)
    chunk = Driver(used.session, text).frames(3)[-1]
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == hashlib.sha256(chunk.tobytes()).hexdigest()


def pixels(count, dtype: Any = np.float32, height=48):
    return np.zeros((1, 3, count, height, 32), dtype)


@pytest.mark.parametrize(
    ("frames", "given", "message"),
    [
        (
            0,
            pixels(4),
            r"tensor 'image' .*: found float32 \[1, 3, 4, 48, 32\]; expected .*3, 1, 48",
        ),
        (0, pixels(0), r"tensor 'image' .*: found float32 \[1, 3, 0, 48, 32\]; expected"),
        (0, pixels(1, np.uint8), r"tensor 'image' .*: found uint8"),
        (0, pixels(1, height=32), r"\[1, 3, 1, 32, 32\]; expected float32 \[1, 3, 1, 48, 32\]"),
        (0, pixels(1)[0], r"found float32 \[3, 1, 48, 32\]"),
        (2, pixels(1), r"tensor 'images' .*: found .*3, 1, 48, 32\]; expected .*3, 4, 48, 32\]"),
        (2, pixels(5), r"tensor 'images' "),
        (2, pixels(4, np.float64), r"tensor 'images' .*: found float64"),
    ],
)
def test_images_that_do_not_fit_are_refused(driver, frames, given, message):
    if frames:
        driver.frames(frames)
    unchanged(driver.session, message, lambda: driver.session.remember(given))


def test_actions_are_refused_where_none_are_kept(driver):
    """Written, they would stand on the first rows of the next slot."""
    session = driver.session
    message = "found executed actions; this contract keeps none here"
    unchanged(session, message, lambda: session.remember(pixels(1), np.zeros((16, 14))))
    driver.frames(2)
    unchanged(session, message, lambda: session.remember(pixels(4), np.zeros((16, 14))))


def test_nothing_to_act_on_is_said(driver):
    session, noise = driver.session, np.zeros((16, 14))
    unchanged(session, "no frame since reset; remember a frame", lambda: session.denoise(noise))
    driver.remember(0)
    unchanged(session, "no joint state since reset", lambda: session.denoise(noise))
    driver.act(0)
    session.reset()
    unchanged(session, "no frame since reset", lambda: session.denoise(noise))


@pytest.mark.parametrize("shape", [(14,), (1, 14), (16, 1), (16, 13), (15, 14), (1, 16, 14), ()])
def test_noise_of_another_shape_is_refused(driver, shape):
    """Some of these would broadcast: every action would start from the same noise."""
    driver.frames(1)
    message = r"tensor 'x' \(normalized noisy actions\): found .*; expected float32 \[1, 16, 14\]"
    unchanged(driver.session, message, lambda: driver.session.denoise(np.zeros(shape)))


@pytest.mark.parametrize("shape", [(1,), (13,), (15,), (2, 14), ()])
def test_a_state_of_another_shape_is_refused(driver, shape):
    driver.frames(1)
    message = r"tensor 'state' .*: found float32 .*; expected float32 \[1, 14\]"
    unchanged(driver.session, message, lambda: driver.session.set_state(np.zeros(shape)))


@pytest.mark.parametrize("num_steps", [0, -1])
def test_no_denoising_steps_are_refused(driver, num_steps):
    driver.frames(1)
    call = lambda: driver.session.denoise(np.zeros((16, 14)), num_steps)  # noqa: E731
    unchanged(driver.session, f"found {num_steps} denoising steps", call)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_any_number_of_steps_gives_the_last_ones_actions(driver, num_steps):
    driver.remember(0)
    driver.act(0)
    noise = np.random.default_rng(0).standard_normal((16, 14)).astype(np.float32)
    chunk = driver.session.denoise(noise, num_steps)
    assert chunk.shape == (16, 14)
    assert not np.array_equal(chunk, noise)
    np.testing.assert_array_equal(driver.session.denoise(noise, num_steps), chunk)


def test_text_that_does_not_fit_is_refused(driver, text):
    driver.frames(1)
    session = driver.session
    name = next(iter(text))
    less = {key: value for key, value in text.items() if key != name}
    message = rf"an instruction's keys and values: missing \['{name}'\]"
    unchanged(session, message, lambda: session.set_text(less))
    unchanged(session, r"left over \['more'\]", lambda: session.set_text(text | {"more": 1}))
    bad = dict(text) | {name: text[name][:, :, 1:]}
    unchanged(session, f"tensor '{name}'", lambda: session.set_text(bad))


@pytest.mark.parametrize("on_full", ["refuse", "stop"])
def test_a_full_memory_refuses_the_next_frame(a_rung, text, on_full):
    driver = Driver(a_rung.session(2, 3, on_full=on_full), text)
    driver.frames(3)
    message = f"3 frames remembered, capacity 3, policy '{on_full}'"
    unchanged(driver.session, message, lambda: driver.remember(3), error=CapacityError)
    driver.act(2)
    # The same episode again, from the start, as the message offers.
    Driver(driver.session, text).frames(3)


def test_the_oldest_gist_makes_room_where_that_is_allowed(a_rung, text):
    dropping = Driver(a_rung.session(2, 4, on_full="drop-oldest-gist"), text)
    keeping = Driver(a_rung.session(4, 12), text)
    found, wanted = dropping.frames(9), keeping.frames(9)
    assert dropping.session.memory.num_dropped_gists == 5
    assert dropping.session.buffers.capacity == 4
    np.testing.assert_allclose(found[:4], wanted[:4], rtol=0, atol=1e-5)
    assert np.abs(found[8] - wanted[8]).max() > 1e-5


@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
def test_executed_actions_belong_to_the_state_they_were_chosen_in(cache_write):
    """Also where the video sees the state: the new frame's must not reach the old actions."""
    model = random_model(contract_with(action_history=True, proprio_in_video_context=True))
    episode = random_episode(model.contract, 8)
    session = eager_session(model, identity(model.contract), cache_write=cache_write)
    with torch.no_grad():
        video, action = model.text_keys_values(torch.from_numpy(episode.context))
    names = [spec.name for spec in session.manifest.graphs["prompt_kv"].outputs]
    tensors = [t.numpy() for pair in (*video[:-1], *action) for t in pair]
    session.reset(dict(zip(names, tensors, strict=True)))
    found, latents = [], []
    for frame, images in enumerate(episode.pixels):
        executed = episode.executed[frame - 1] if frame else None
        session.remember(images, executed, episode.states[frame])
        latents.append(torch.from_numpy(session.calls.tensor("cache_update", "latent").copy()))
        session._prepare_chunk(session.memory.rows.chunk)
        session.calls.input("action_step", "x").put(episode.noise[frame][None])
        session.calls._step("a test's", 700.0, 1.0, turn=0)()
        x_next = session.calls.tensor("action_step", "x_next")[0]
        found.append(x_next - episode.noise[frame])
    wanted = oracle_velocities(model, episode, torch.cat(latents, dim=2), Visible())
    assert np.abs(np.stack(found) - wanted).max() <= 1e-9


@pytest.mark.parametrize("shape", [(16, 13), (14,), (1, 14), (16, 1)])
def test_executed_actions_of_another_shape_are_refused(shape):
    model = random_model(contract_with(action_history=True))
    episode = random_episode(model.contract, 2)
    session = eager_session(model, identity(model.contract))
    message = "executed actions need the joint state"
    session.remember(episode.pixels[0])
    unchanged(session, message, lambda: session.remember(episode.pixels[1], np.zeros((16, 14))))
    session.set_state(episode.states[0])
    call = lambda: session.remember(episode.pixels[1], np.zeros(shape))  # noqa: E731
    unchanged(session, r"tensor 'x' .*expected float64 \[1, 16, 14\]", call)


def test_a_windowed_encoder_starts_from_the_last_image():
    """Each latent is that of the last image and the group after it, encoded afresh."""
    model = random_model(contract_with(vae_history="windowed"))
    episode = random_episode(model.contract, 4)
    session = eager_session(model, identity(model.contract))
    last = None
    for images in episode.pixels:
        session.remember(images)
        window = images if last is None else np.concatenate((last, images), axis=2)
        with torch.no_grad():
            wanted = model.vae.encode(torch.from_numpy(window))[:, :, -1:].numpy()
        latent = session.calls.tensor("cache_update", "latent")
        np.testing.assert_allclose(latent, wanted, rtol=0, atol=1e-12)
        last = images[:, :, -1:]


def test_where_observations_stand_alone_only_the_newest_counts():
    model = random_model(contract_with("tiny-fastwam"))
    episode = random_episode(model.contract, 3)
    sessions = [eager_session(model, identity(model.contract)) for _ in range(2)]
    for images in episode.pixels:
        sessions[0].remember(images, state=episode.states[2])
    sessions[1].remember(episode.pixels[2], state=episode.states[2])
    chunks = [session.denoise(episode.noise[0]) for session in sessions]
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert sessions[0].memory.num_frames == 1
