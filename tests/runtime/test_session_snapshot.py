"""Snapshots of a session on every rung: taken, restored bit for bit, or refused."""

import msgspec
import numpy as np
import pytest
from tests.fakes.bundles import differences
from tests.fakes.driver import Driver

from memorywam_runtime.errors import InputError


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
    (lambda s: {"arrays": without(s, "vae_cache.00")}, r"snapshot: missing \['vae_cache.00'\]"),
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
