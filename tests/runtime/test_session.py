"""A session on every rung: reset, snapshot, capacity, buckets, drift and allocation."""

import hashlib
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import torch
from tests.export.test_slot_memory import oracle_velocities
from tests.fakes.bundles import differences, rung
from tests.fakes.episodes import contract_with, identity, random_episode, random_model

from memorywam_export.eager import eager_session
from memorywam_export.reference.oracle import Visible
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.errors import CapacityError, InputError


class Driver:
    """Drives a session through the same episode, frame by frame."""

    def __init__(self, session, text, seed=0):
        self.session = session
        self.seed = seed
        session.reset(text)

    def remember(self, frame):
        rng = np.random.default_rng((self.seed, frame))
        count = 1 if frame == 0 else 4
        self.session.remember(rng.uniform(-1, 1, (1, 3, count, 48, 32)).astype(np.float32))

    def act(self, frame):
        rng = np.random.default_rng((self.seed, frame, 1))
        self.session.set_state(rng.standard_normal(14))
        return self.session.denoise(rng.standard_normal((16, 14)))

    def frames(self, *span):
        """Remember and act; return the chunks [frames, horizon, action_dim]."""
        chunks = []
        for frame in range(*span):
            self.remember(frame)
            chunks.append(self.act(frame))
        return np.stack(chunks)


@pytest.fixture(scope="module")
def text(a_rung):
    return read_prompt(a_rung.root, a_rung.manifest, "random")


@pytest.fixture
def driver(a_rung, text):
    return Driver(a_rung.session(), text)


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
    for array in (*driver.session.buffers._flat.values(), *driver.session.buffers._fixed.values()):
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


@pytest.mark.parametrize("cut", [1, 2, 3, 6], ids=lambda cut: f"after {cut}")
def test_a_restored_session_goes_on_bit_for_bit(a_rung, text, cut):
    """Buckets of 2, 5 and 64 frames: the cuts lie before, at and behind a growth."""
    first = Driver(a_rung.session(2, 5, 64), text)
    first.frames(cut)
    snapshot = first.session.snapshot()
    wanted = first.frames(cut, 9)
    end = first.session.snapshot()
    other = Driver(a_rung.session(2, 5, 64), text, seed=4)
    other.frames(8 - cut)
    for session in (first.session, other.session, a_rung.session(2, 5, 64)):
        session.restore(snapshot)
        assert differences(session.snapshot(), snapshot) == []
        driver = Driver.__new__(Driver)
        driver.session, driver.seed = session, 0
        assert driver.frames(cut, 9).tobytes() == wanted.tobytes()
        assert differences(session.snapshot(), end) == []


def test_a_snapshot_is_not_changed_by_what_follows(driver):
    driver.frames(2)
    snapshot = driver.session.snapshot()
    kept = {name: array.copy() for name, array in snapshot.arrays.items()}
    driver.frames(2, 5)
    driver.session.restore(snapshot)
    driver.frames(2, 4)
    for name, array in kept.items():
        np.testing.assert_array_equal(snapshot.arrays[name], array)


def without(snapshot, name):
    return {key: value for key, value in snapshot.arrays.items() if key != name}


BAD_SNAPSHOTS = [
    (
        lambda s: {"contract_hash": "0" * 64},
        r"found a snapshot of contract 000000000000\.\.\.; exp",
    ),
    (
        lambda s: {"arrays": without(s, "memory.01.v")},
        r"snapshot: missing \['memory.01.v'\], left o",
    ),
    (lambda s: {"arrays": without(s, "last_image")}, r"snapshot: missing \['last_image'\]"),
    (lambda s: {"arrays": s.arrays | {"more": np.zeros(1)}}, r"missing \[\], left over \['more'\]"),
    (
        lambda s: {"arrays": s.arrays | {"memory.00.k": s.arrays["memory.00.k"][:, :, 1:]}},
        r"tensor 'memory.00.k' .*: found float32 .*; expected float32",
    ),
    (
        lambda s: {"arrays": s.arrays | {"memory.00.k": s.arrays["memory.00.k"].astype("f8")}},
        r"tensor 'memory.00.k' .*: found float64 .*; expected float32",
    ),
    (lambda s: {"bucket": 1}, r"tensor 'memory.00.k' "),
    (lambda s: {"bucket": 3}, "found a snapshot in bucket 3; expected 0 to 2"),
    (lambda s: {"bucket": -1}, "found a snapshot in bucket -1; expected 0 to 2"),
    (
        lambda s: {"memory": msgspec.structs.replace(s.memory, slot_frames=(0,))},
        "found a snapshot with 1 slots; expected 5",
    ),
    (
        lambda s: {"memory": msgspec.structs.replace(s.memory, num_dropped_gists=1)},
        "another max_frames",
    ),
]


@pytest.mark.parametrize(("change", "message"), BAD_SNAPSHOTS)
def test_restore_refuses_what_does_not_fit_and_changes_nothing(a_rung, text, change, message):
    driver = Driver(a_rung.session(3, 5, 64), text)
    driver.frames(2)
    snapshot = driver.session.snapshot()
    driver.frames(2, 3)
    before = driver.session.snapshot()
    with pytest.raises(InputError, match=message):
        driver.session.restore(msgspec.structs.replace(snapshot, **change(snapshot)))
    assert differences(driver.session.snapshot(), before) == []
    wanted = driver.frames(3, 5)
    driver.session.restore(before)
    assert driver.frames(3, 5).tobytes() == wanted.tobytes()


def test_a_snapshot_of_a_dropping_memory_does_not_fit_a_larger_one(a_rung, text):
    """Its gists stand where a larger table would never look for them."""
    small = Driver(a_rung.session(3, on_full="drop-oldest-gist"), text)
    small.frames(5)
    large = Driver(a_rung.session(3, 8), text)
    with pytest.raises(InputError, match="another max_frames"):
        large.session.restore(small.session.snapshot())
    assert large.session.memory.num_frames == 0


def unchanged(session, message, call, *, error=InputError):
    before = session.snapshot()
    with pytest.raises(error, match=message):
        call()
    assert differences(session.snapshot(), before) == []


def pixels(count, dtype=np.float32, height=48):
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


def written_rows(session):
    """Return which rows hold something by the rules, chunk aside."""
    memory, rows = session.memory, session.memory.rows
    written = np.zeros(session.buffers.num_rows, bool)
    for frame in range(memory.num_frames):
        slot = rows.slot(memory.slot_of(frame))
        written[slot : slot + rows.num_frame] = True
        place = rows.gist(memory.gist_place(frame))
        written[place : place + rows.num_gists] = True
    if session.manifest.cache_write == "in_place":
        written[rows.chunk : rows.chunk + rows.num_actions] = True
    return written


@pytest.mark.parametrize("num_frames", [1, 3, 4, 6])
def test_rows_that_are_not_used_hold_zeros(a_rung, text, num_frames):
    """A hidden row's weight is 0, and 0 times whatever was there must be 0."""
    driver = Driver(a_rung.session(3, 5, 16), text, seed=1)
    driver.frames(6)
    Driver(driver.session, text).frames(num_frames)
    written = written_rows(driver.session)
    for array in driver.session.calls.memory.values():
        used = np.asarray(array).any(axis=(0, 1, 3))
        np.testing.assert_array_equal(used, written)


def test_the_gist_table_holds_the_slots_gists(driver):
    driver.frames(4)
    memory, rows = driver.session.memory, driver.session.memory.rows
    for array in driver.session.calls.memory.values():
        for frame in range(4):
            slot = rows.slot(memory.slot_of(frame)) + rows.num_visual
            table = rows.gist(frame)
            np.testing.assert_array_equal(
                array[:, :, slot : slot + rows.num_gists],
                array[:, :, table : table + rows.num_gists],
            )


def test_results_do_not_depend_on_the_bucket(a_rung, text):
    """Hidden rows add exact zeros; only the order of float32 sums may change with their number."""
    plans = [(64,), (3, 64), (1, 2, 3, 4, 5, 6, 7, 8), (8,), (5, 8, 64)]
    chunks = [Driver(a_rung.session(*plan), text).frames(8) for plan in plans]
    for other in chunks[1:]:
        np.testing.assert_allclose(other, chunks[0], rtol=0, atol=1e-5)  # measured: 9.6e-7


def test_acting_changes_nothing_that_is_remembered(driver):
    driver.frames(3)
    rows = driver.session.memory.rows
    before = driver.session.snapshot()
    first, second = driver.act(7), driver.act(8)
    assert not np.array_equal(first, second)
    after = driver.session.snapshot()
    for name in driver.session.calls.memory:
        kept = np.ones(after.arrays[name].shape[2], bool)
        kept[rows.chunk : rows.chunk + rows.num_actions] = False  # never seen by anything later
        np.testing.assert_array_equal(
            after.arrays[name][:, :, kept], before.arrays[name][:, :, kept]
        )
    assert after.memory == before.memory
    np.testing.assert_array_equal(driver.act(7), first)
    # The next frame is the same whether there was an act in between or not.
    driver.remember(3)
    with_acts = driver.act(3)
    driver.session.restore(before)
    driver.remember(3)
    np.testing.assert_array_equal(driver.act(3), with_acts)


def test_the_unused_rows_of_the_chunk_are_never_seen(driver):
    """What a chunk left in memory must not reach the next frame, nor the next chunk."""
    driver.frames(3)
    before = driver.session.snapshot()
    rows = driver.session.memory.rows
    wanted = driver.frames(3, 5)
    driver.session.restore(before)
    for array in driver.session.calls.memory.values():
        array[:, :, rows.chunk : rows.chunk + rows.num_actions] = 1e3
    np.testing.assert_array_equal(driver.frames(3, 5), wanted)


def test_everything_reaches_the_actions(driver, text):
    """Else a test of equality might compare constants."""
    chunks = [driver.frames(4)[-1]]
    chunks.append(Driver(driver.session, text, seed=1).frames(4)[-1])
    base = Driver(driver.session, text)
    base.frames(4)
    chunks.append(base.session.denoise(np.zeros((16, 14))))
    base.session.set_state(np.ones(14))
    chunks.append(base.session.denoise(np.zeros((16, 14))))
    base.session.set_text({name: 2 * value for name, value in text.items()})
    chunks.append(base.session.denoise(np.zeros((16, 14))))
    for i, first in enumerate(chunks):
        for second in chunks[:i]:
            assert np.abs(first - second).max() > 1e-4


STEADY = """
import gc, sys, tracemalloc
import msgspec, numpy as np, psutil
from memorywam_runtime import Session, open_bundle
from memorywam_runtime.bundle import read_prompt

opened = open_bundle(sys.argv[1], num_threads=1, spin=False)
plan = msgspec.structs.replace(
    opened.manifest.memory, max_frames=32, gist_buckets=(8, 32), on_full="drop-oldest-gist"
)
manifest = msgspec.structs.replace(opened.manifest, memory=plan)
engines = {
    name: opened.backend.load(opened.root / entry.file, entry)
    for name, entry in manifest.graphs.items()
}
session = Session(manifest, opened.backend, engines, root=opened.root)
session.reset(read_prompt(opened.root, manifest, "random"))
frame = 0


def frames(count):
    global frame
    for frame in range(frame, frame + count):
        rng = np.random.default_rng(frame)
        pixels = rng.uniform(-1, 1, (1, 3, 4 if session.memory.num_frames else 1, 48, 32))
        session.remember(pixels.astype(np.float32))
        session.set_state(rng.standard_normal(14))
        session.denoise(rng.standard_normal((16, 14)))
    frame += 1
    gc.collect()


frames(60)
num_buffers = len(session.buffers._fixed)
resident = psutil.Process().memory_info().rss
frames(200)
resident = psutil.Process().memory_info().rss - resident
tracemalloc.start()
frames(10)
traced = tracemalloc.get_traced_memory()[0]
frames(200)
traced = tracemalloc.get_traced_memory()[0] - traced
print(resident, traced, len(session.buffers._fixed) - num_buffers)
"""


@pytest.mark.parametrize("bundle", ["tiny_bundle", "tiny_bundle_opset20"])
def test_a_steady_session_allocates_nothing_that_grows(bundle, request):
    """200 frames after a warm-up, with a full table whose oldest gists are dropped."""
    found = subprocess.run(
        [sys.executable, "-c", STEADY, str(request.getfixturevalue(bundle))],
        capture_output=True,
        text=True,
        check=True,
    )
    resident, traced, buffers = map(int, found.stdout.split())
    assert buffers == 0
    # Measured: 72 bytes in all. One array kept a frame would be 200 x 16 x 14 x 4 B = 175 KiB.
    assert traced < 4 * 1024
    # Measured: 104 KiB in the first 200 frames, 12 KiB in the next, 0 in those after.
    assert resident < 1024**2


@pytest.fixture(scope="module")
def by_torch(tiny_bundle):
    """Return what torch makes of 300 frames."""
    eager = rung("eager", tiny_bundle)
    text = read_prompt(eager.root, eager.manifest, "random")
    return Driver(eager.session(32, 128, 512), text).frames(300)


@pytest.mark.parametrize("name", ["ort in place", "ort copy"])
def test_the_drift_from_torch_does_not_grow_over_300_frames(
    name, by_torch, tiny_bundle, tiny_bundle_opset20
):
    """Each carries its own memory; an error that fed itself would double and double again."""
    other = rung(name, tiny_bundle_opset20 if name == "ort copy" else tiny_bundle)
    text = read_prompt(other.root, other.manifest, "random")
    wanted = by_torch
    found = Driver(other.session(32, 128, 512), text).frames(300)
    errors = np.abs(found - wanted).max(axis=(1, 2))
    # Floor: two last bits of the largest action (9.7), for any single frame may round twice.
    # Measured: 7.2e-7 at frame 10, at most 1.5e-6; the median of the first and of the last 50
    # frames is the same, 7.2e-7.
    floor = 2 * np.spacing(np.abs(wanted).max())
    assert errors.max() <= 2 * errors[10] + floor
    assert np.median(errors[-50:]) <= 2 * np.median(errors[:50])
    assert np.abs(wanted[299] - wanted[10]).max() > 0.01


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
        session._write("action_step", "x", episode.noise[frame][None])
        session._write("action_step", "timestep", np.array([700.0]))
        session._write("action_step", "delta", np.ones(1))
        session.calls.action_step[0]()
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
