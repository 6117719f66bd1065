"""Images fed as they arrive: the same frames bit for bit, on every rung and in every order."""

import numpy as np
import pytest
from tests.fakes.bundles import bundle_once, differences, rung
from tests.fakes.driver import Driver, unchanged
from tests.fakes.rungs import RUNGS

from memorywam_runtime.errors import CapacityError, InputError

WHOLE = "ort, whole groups"
"""A bundle whose encoder takes a group in one call: images wait for it on the host."""


@pytest.fixture(scope="module")
def whole_bundle(tmp_path_factory):
    return bundle_once(tmp_path_factory, 20, no_rewrites=("early-frames",))


@pytest.fixture(scope="module", params=[*RUNGS, WHOLE])
def a_rung(request):
    """Every rung, and the encoder that does not encode early."""
    if request.param == WHOLE:
        found = rung("ort", request.getfixturevalue("whole_bundle"))
        assert "vae_step" in found.manifest.graphs
        return found
    bundle = "tiny_bundle_opset20" if request.param == "ort copy" else "tiny_bundle"
    found = rung(request.param, request.getfixturevalue(bundle))
    assert "vae_image" in found.manifest.graphs
    return found


def images_of(frame, seed=0):
    """Return a frame's images, each [1, 3, 1, H, W]: those that a driver remembers."""
    rng = np.random.default_rng((seed, frame))
    count = 1 if frame == 0 else 4
    pixels = rng.uniform(-1, 1, (1, 3, count, 48, 32)).astype(np.float32)
    return [pixels[:, :, at : at + 1] for at in range(count)]


def see(session, *images):
    for image in images:
        session.see(image)


@pytest.mark.parametrize("num_seen", [1, 2, 3, 4])
def test_seen_images_make_the_same_frames(a_rung, text, num_seen):
    """Also across the growth of the gist table, between images and `remember`."""
    whole, seen = (Driver(a_rung.session(2, 5, 64), text) for _ in range(2))
    for frame in range(7):
        whole.remember(frame)
        images = images_of(frame)
        see(seen.session, *images[:num_seen])
        rest = images[num_seen:]
        number = seen.session.remember(np.concatenate(rest, axis=2) if rest else None)
        assert number == frame
        assert seen.act(frame).tobytes() == whole.act(frame).tobytes()
        assert differences(seen.session.snapshot(), whole.session.snapshot()) == []


@pytest.mark.parametrize("num_seen", [1, 2, 3, 4])
def test_a_forgotten_group_never_was(a_rung, text, num_seen):
    clean, dropping = (Driver(a_rung.session(), text) for _ in range(2))
    for frame in range(5):
        before = dropping.session.snapshot()
        see(dropping.session, *images_of(frame, seed=9)[:num_seen])
        dropping.session.forget_seen()
        assert differences(dropping.session.snapshot(), before) == []
        clean.remember(frame)
        dropping.remember(frame)
        assert differences(dropping.session.snapshot(), clean.session.snapshot()) == []


def test_what_was_committed_is_not_touched_before_the_group_is_complete(a_rung, text):
    """The snapshot's own tensors, read in the middle of a group."""
    driver = Driver(a_rung.session(), text)
    driver.frames(2)
    for frame in (2, 3):
        before = driver.session.snapshot()
        for image in images_of(frame):
            driver.session.see(image)
            kept = driver.session.encoder.state_arrays()
            for name, (_, array) in kept.items():
                assert before.arrays[name].tobytes() == np.asarray(array).tobytes(), name
        driver.session.remember()


BAD = [
    (np.zeros((1, 3, 4, 48, 32), np.float32), r"tensor 'image' .*: found .*3, 4, 48"),
    (np.zeros((1, 3, 1, 48, 32), np.float64), r"tensor 'image' .*: found float64"),
    (np.zeros((1, 3, 1, 32, 48), np.float32), r"tensor 'image' .*: found .*3, 1, 32, 48"),
    (np.zeros((3, 1, 48, 32), np.float32), r"tensor 'image' .*: found .*\[3, 1, 48, 32\]"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_an_image_that_does_not_fit_is_refused(a_rung, text, given, message):
    """In the middle of a group a snapshot cannot tell, so what follows must."""
    clean, driver = (Driver(a_rung.session(), text) for _ in range(2))
    unchanged(driver.session, message, lambda: driver.session.see(given))
    for frame in range(3):
        clean.remember(frame)
        first, *rest = images_of(frame)
        driver.session.see(first)
        for image in rest:
            with pytest.raises(InputError, match=message):
                driver.session.see(given)
            driver.session.see(image)
        driver.session.remember()
        assert differences(driver.session.snapshot(), clean.session.snapshot()) == []


def test_an_incomplete_group_is_refused(a_rung, text):
    clean, driver = (Driver(a_rung.session(), text) for _ in range(2))
    session = driver.session
    unchanged(session, "found 0 images; expected 1: feed the rest of frame 0", session.remember)
    clean.remember(0)
    driver.remember(0)
    unchanged(session, "found 0 images; expected 4: feed the rest of frame 1", session.remember)
    images = images_of(1)
    see(session, *images[:2])
    with pytest.raises(InputError, match="found 2 images; expected 4: feed the rest of frame 1"):
        session.remember()
    rest = np.concatenate(images[2:], axis=2)
    too_few = r"tensor 'images' .*3, 1, 48, 32\]; expected float32 \[1, 3, 2, 48, 32\]"
    for count in (1, 3, 4):
        given = np.zeros((1, 3, count, 48, 32), np.float32)
        with pytest.raises(InputError, match=too_few.replace("3, 1, 48", f"3, {count}, 48")):
            session.remember(given)
    session.remember(rest)
    clean.remember(1)
    assert differences(session.snapshot(), clean.session.snapshot()) == []


def test_an_image_too_many_is_refused(a_rung, text):
    clean, driver = (Driver(a_rung.session(), text) for _ in range(2))
    session = driver.session
    for frame, expected in ((0, 1), (1, 4)):
        images = images_of(frame)
        see(session, *images)
        message = f"more images than frame {frame} takes; expected {expected}"
        with pytest.raises(InputError, match=message):
            session.see(images[0])
        with pytest.raises(InputError, match=message):
            session.remember(images[0])
        session.remember()
        clean.remember(frame)
        assert differences(session.snapshot(), clean.session.snapshot()) == []


def test_a_snapshot_in_the_middle_of_a_group_is_refused(a_rung, text):
    clean, driver = (Driver(a_rung.session(), text) for _ in range(2))
    for frame in range(2):
        clean.remember(frame)
        driver.remember(frame)
    see(driver.session, *images_of(2)[:3])
    with pytest.raises(InputError, match=r"found 3 images of frame 2 seen; .* between frames"):
        driver.session.snapshot()
    driver.session.remember(images_of(2)[3])
    clean.remember(2)
    assert differences(driver.session.snapshot(), clean.session.snapshot()) == []


def test_restore_and_reset_forget_what_was_seen(a_rung, text):
    driver = Driver(a_rung.session(), text)
    driver.frames(3)
    snapshot = driver.session.snapshot()
    wanted = driver.frames(3, 5)
    see(driver.session, *images_of(5, seed=8)[:3])
    driver.session.restore(snapshot)
    assert driver.frames(3, 5).tobytes() == wanted.tobytes()
    see(driver.session, *images_of(5, seed=8)[:2])
    again = Driver(driver.session, text).frames(5)
    assert again.tobytes() == Driver(a_rung.session(), text).frames(5).tobytes()


def test_a_full_memory_refuses_the_first_image(a_rung, text):
    driver = Driver(a_rung.session(2), text)
    driver.frames(2)
    message = "2 frames remembered, capacity 2"
    call = lambda: driver.session.see(images_of(2)[0])  # noqa: E731
    unchanged(driver.session, message, call, error=CapacityError)


def test_early_images_take_their_time_before_the_group_is_due(a_rung, text):
    """What runs when: three images and a pair as they arrive, the rest with `remember`."""
    driver = Driver(a_rung.session(), text)
    driver.remember(0)
    timings = driver.session.timings
    timings.restart()
    see(driver.session, *images_of(1))
    stages = ("vae_image", "vae_pair", "vae_group", "see")
    early = [len(timings.milliseconds(stage)) for stage in stages]
    driver.session.remember()
    after = [len(timings.milliseconds(stage)) for stage in stages]
    if "vae_step" in a_rung.manifest.graphs:
        assert (early, after) == ([0, 0, 0, 4], [0, 0, 0, 4])
    else:
        assert (early, after) == ([3, 1, 0, 4], [4, 2, 1, 4])
