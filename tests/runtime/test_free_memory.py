"""Memory is held against what is free before any is taken, and all taken before an episode."""

import numpy as np
import pytest
from tests.fakes.bundles import bundle_once
from tests.fakes.rungs import NEWEST_OPSET
from tests.runtime.doctor.test_doctor_machine import write

from memorywam_runtime import buffers, free_memory
from memorywam_runtime.bundle import open_bundle
from memorywam_runtime.errors import BundleError, CapacityError
from memorywam_runtime.free_memory import available_bytes, check_room


def set_free(monkeypatch, free_bytes):
    monkeypatch.setattr(free_memory, "available_bytes", lambda: free_bytes)


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [(None, 0, 1 << 30), ("max", 5, 1 << 30), (1 << 29, 1 << 28, 1 << 28), (1 << 29, 1 << 30, 0)],
)
def test_a_container_may_leave_less_than_the_system(tmp_path, limit, used, expected):
    write(tmp_path, proc__meminfo=f"MemTotal: 9 kB\nMemAvailable: {1 << 20} kB\n")
    if limit is not None:
        group = {"memory.max": f"{limit}\n", "memory.current": f"{used}\n"}
        write(tmp_path / "sys/fs/cgroup", **group)
    assert available_bytes(tmp_path) == expected


def test_a_machine_that_tells_nothing_has_what_it_was_built_with(tmp_path):
    assert available_bytes(tmp_path) > 1 << 28


def test_memory_that_just_fits(monkeypatch):
    set_free(monkeypatch, 1 << 20)
    check_room(1 << 20, 7)
    with pytest.raises(CapacityError, match=r"memory of 7 frames takes 0\.00 GB; 0\.00 GB are"):
        check_room((1 << 20) + 1, 7)


def test_a_bundle_opens_only_where_its_whole_memory_fits(tmp_path_factory, monkeypatch):
    bundle = bundle_once(tmp_path_factory, NEWEST_OPSET)
    session = open_bundle(bundle)
    size = session.buffers._arena.nbytes
    asked = []
    monkeypatch.setattr(buffers, "check_room", lambda *found: asked.append(found))
    open_bundle(bundle)
    assert asked == [(size, 256)]  # of the last bucket, not of the first
    monkeypatch.undo()
    set_free(monkeypatch, size - 1024)
    taken = []
    monkeypatch.setattr(np, "zeros", lambda *found: taken.append(found))
    with pytest.raises(BundleError, match=r"memory of 256 frames takes .* fewer --max-frames"):
        open_bundle(bundle)
    assert taken == []


def test_growing_in_an_episode_takes_no_memory(tmp_path_factory):
    session = open_bundle(bundle_once(tmp_path_factory, NEWEST_OPSET))
    place = session.buffers._arena.ctypes.data
    while session.buffers.capacity < 256:
        session.buffers.grow()
    assert session.buffers._arena.ctypes.data == place
    assert session.buffers.arena().nbytes == session.buffers._arena.nbytes
