"""Memory goes from a bundle's form to the exported one and back, and nothing is lost on the way."""

import numpy as np
import pytest

from memorywam_export.episodes.drift import random_frames, remember
from memorywam_export.ladder.memory_form import form_of
from memorywam_export.ladder.memory_side import Side
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import open_bundle, read_prompt

FRAMES = 9


def filled(bundle, table=None):
    """A side that remembers the frames."""
    session = open_bundle(bundle, num_threads=1, allow_unverified=True)
    session.reset(read_prompt(bundle, session.manifest, "random"))
    before = None
    for frame in random_frames(session.contract, FRAMES, seed=2):
        remember(session, frame, before)
        before = frame
    return Side(session, form_of(session.manifest, table)), before


@pytest.fixture(scope="module", params=["kv-int8", "kv-fp8"])
def sides(request, tiny_bundle, tmp_path_factory):
    """The bundle as exported and with a narrow window, and the newest frame."""
    recipe = RECIPES[request.param]
    table = random_input_ranges(tiny_bundle, recipe, num_episodes=4, num_frames=4)
    out = tmp_path_factory.mktemp("narrow") / "out"
    quantize_bundle(tiny_bundle, out, recipe, table)
    wide, frame = filled(tiny_bundle)
    narrow, _ = filled(out, table)
    return wide, narrow, frame


def test_both_remember_the_same_in_the_exported_form(sides):
    wide, narrow, _ = sides
    found, wanted = narrow.kept(), wide.kept()
    assert found.state.slot_frames == wanted.state.slot_frames
    rows = wide.session.memory.rows
    for name, tensor in wanted.memory.items():
        for slot, frame in enumerate(wanted.state.slot_frames):
            own = slice(rows.slot(slot), rows.slot(slot) + rows.num_visual)
            error = np.abs(found.memory[name][:, own] - tensor[:, own]).max()
            limit = 0.1  # fp8 rounds by up to a sixteenth, and its own memory made the frame
            assert error < limit * np.abs(tensor[:, own]).max(), (name, frame)


def test_what_is_taken_over_is_given_back(sides):
    _, narrow, frame = sides
    kept = narrow.kept()
    before = narrow.session.denoise(frame.noise[0])
    narrow.take_over(kept)
    again = narrow.kept()
    for name, tensor in kept.memory.items():
        assert np.allclose(again.memory[name], tensor, rtol=1e-6, atol=1e-7), name
    narrow.session.set_state(frame.state)
    assert np.allclose(narrow.session.denoise(frame.noise[0]), before, atol=1e-5)


def test_a_wide_session_on_a_narrow_memory_acts_as_the_narrow_one(sides):
    wide, narrow, frame = sides
    own = wide.session.snapshot()
    mine = wide.session.denoise(frame.noise[0])
    theirs = narrow.session.denoise(frame.noise[0])
    wide.take_over(narrow.kept())
    wide.session.set_state(frame.state)
    lent = wide.session.denoise(frame.noise[0])
    wide.session.restore(own)
    # A chunk reads memory and writes none of it: with one memory both do the same.
    assert np.abs(lent - theirs).max() < 1e-5
    assert np.abs(mine - theirs).max() > 1e-4
    wide.session.set_state(frame.state)
    assert np.array_equal(wide.session.denoise(frame.noise[0]), mine)
