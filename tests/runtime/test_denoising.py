"""A chunk in slices: what is done between its steps and the chunk do not reach each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.bundles import differences, rung
from tests.fakes.denoising import CASES, NUM_STEPS, Life, check, eager, interleaved

from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import read_prompt
from memorywam_runtime.errors import DeviceError, StaleChunkError

BETWEEN = st.lists(st.sampled_from(["frame", "frame", "frame", "act", "state"]), max_size=3)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=10, deadline=None)
@given(
    num_frames=st.integers(1, 7),
    between=st.lists(BETWEEN, min_size=NUM_STEPS, max_size=NUM_STEPS + 1),
)
def test_updates_between_steps_and_the_chunk_do_not_reach_each_other(case, num_frames, between):
    check(Life(eager(case)), num_frames, between)


@pytest.mark.parametrize("case", CASES)
def test_every_slot_may_be_overwritten_twice_within_a_chunk(case):
    between = [["frame"] * 3, ["frame"], [], ["frame", "act", "frame", "frame"], ["frame"]]
    check(Life(eager(case)), 6, between)


@pytest.mark.parametrize("case", ["in place", "history in place", "gists dropped", "single frame"])
def test_without_the_rows_kept_the_chunk_would_be_another(case, monkeypatch):
    """Else the tests above would compare what no update changes."""
    life = Life(eager(case))
    life.begin(6)
    noise = life.chunk()
    wanted = life.session.denoise(noise, NUM_STEPS)
    monkeypatch.setattr(life.session._aside, "_keep", lambda *_: None)
    found, _ = interleaved(life, noise, [[], ["frame"]])
    assert np.abs(found - wanted).max() > 1e-5


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
def test_slices_are_the_chunk(life, num_steps):
    check(life, 3, [], num_steps)


def test_on_every_rung_updates_may_come_in_between(life):
    check(life, 6, [[], ["frame"], ["frame", "state"], ["frame", "act", "frame"]])


@pytest.fixture(scope="module", params=["in place", "copy"])
def narrow(request, tmp_path_factory):
    """A bundle whose window is in 8 bits."""
    name = "tiny_bundle" if request.param == "in place" else "tiny_bundle_opset20"
    bundle, recipe = request.getfixturevalue(name), RECIPES["kv-int8"]
    table = random_input_ranges(bundle, recipe, num_episodes=2, num_frames=3)
    out = tmp_path_factory.mktemp("narrow") / "out"
    quantize_bundle(bundle, out, recipe, table)
    return rung("ort", out)


@pytest.mark.parametrize("num_frames", [2, 3, 4, 7])
def test_a_narrow_window_is_kept_as_the_chunk_saw_it(narrow, num_frames):
    assert narrow.manifest.has_narrow_window
    life = Life(narrow.session(64), read_prompt(narrow.root, narrow.manifest, "random"))
    check(life, num_frames, [[], ["frame"], ["frame", "frame"], ["frame", "state", "frame"]])


def test_narrow_rows_not_kept_would_show(narrow, monkeypatch):
    life = Life(narrow.session(64), read_prompt(narrow.root, narrow.manifest, "random"))
    life.begin(7)
    noise = life.chunk()
    wanted = life.session.denoise(noise, NUM_STEPS)
    for name in ("keep_window", "keep_rows"):
        with monkeypatch.context() as patch:
            patch.setattr(life.session._aside, name, lambda *_: None)
            start = life.session.snapshot()
            found, _ = interleaved(life, noise, [[], ["frame"]])
            life.session.restore(start)
        assert np.abs(found - wanted).max() > 1e-6, name


def test_a_chunk_goes_on_in_a_larger_memory(a_rung, text):
    """As exactly as results do not depend on the bucket: only the order of sums may change."""
    life = Life(a_rung.session(5, 6, 64), text)
    life.begin(5)
    noise = life.chunk()
    wanted = life.session.denoise(noise, NUM_STEPS)
    found, _ = interleaved(life, noise, [[], ["frame", "frame"], ["frame"]])
    assert life.session.buffers.bucket == 2
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    life.session.reset(text)
    life.number = 0
    check(life, 7, [["frame"], ["frame"]])


def counted(monkeypatch, backend, name):
    """Count a backend's calls."""
    calls, true = [], getattr(backend, name)

    def call(*args):
        calls.append(args)
        return true(*args)

    monkeypatch.setattr(backend, name, call)
    return calls


def test_a_chunk_left_alone_copies_nothing(life, monkeypatch):
    life.begin(6)
    copies = counted(monkeypatch, life.session.backend, "copy_rows")
    writes = counted(monkeypatch, life.session.backend, "write")
    life.session.denoise(life.chunk(), NUM_STEPS)
    num_writes, num_copies = len(writes), len(copies)
    interleaved(life, life.chunk(), [])
    assert (len(writes), len(copies)) == (2 * num_writes, 2 * num_copies)


def test_frames_without_a_chunk_copy_no_more_than_before(life, monkeypatch):
    life.begin(6)
    copies = counted(monkeypatch, life.session.backend, "copy_rows")
    life.frame()
    num_copies = len(copies)
    interleaved(life, life.chunk(), [])
    given_up = life.session.begin_chunk(life.chunk())
    given_up.advance()
    given_up.give_up()
    copies.clear()
    life.frame()
    assert len(copies) == num_copies


def test_chunks_after_the_first_allocate_nothing(life, monkeypatch):
    between = [[], ["frame"], ["frame"]]
    life.begin(6)
    for _ in range(2):
        interleaved(life, life.chunk(), between)
    made = counted(monkeypatch, life.session.backend, "flat")
    for _ in range(3):
        interleaved(life, life.chunk(), between)
    assert made == []


def test_one_update_needs_nothing_beyond_what_the_first_chunk_allocates(a_rung, text, monkeypatch):
    life = Life(a_rung.session(64), text)
    life.begin(6)
    chunk = life.session.begin_chunk(life.chunk())
    chunk.advance()
    made = counted(monkeypatch, life.session.backend, "flat")
    life.frame()
    chunk.advance()
    assert made == []


def test_where_there_is_no_room_memory_goes_on_and_the_chunk_does_not(life, monkeypatch):
    life.begin(6)
    start, number = life.session.snapshot(), life.number
    chunk = life.session.begin_chunk(life.draw(16, 14))

    def refused(*_):
        raise DeviceError("found the device full")

    with monkeypatch.context() as patch:
        patch.setattr(life.session.backend, "flat", refused)
        life.frame()
        assert not chunk.is_stale
        life.frame()
    assert chunk.is_stale
    with pytest.raises(StaleChunkError, match=r"no room was left .*found the device full"):
        chunk.advance()
    after = life.memory()
    life.session.restore(start)
    life.number = number + 1
    for _ in range(2):
        life.frame()
    assert differences(life.memory(), after) == []
