"""A wide session that forgets as a narrow window does remembers what the real bundle does."""

import msgspec
import numpy as np
import pytest

from memorywam_calibration.replay.narrow_memory import NarrowMemory
from memorywam_calibration.replay.replay import policy_from_bundle
from memorywam_export.episodes.drift import random_frames, remember
from memorywam_export.ladder.memory_form import form_of
from memorywam_export.ladder.memory_side import Side
from memorywam_export.quantize.quantize import quantize_bundle
from memorywam_export.quantize.quantize_ranges import random_input_ranges
from memorywam_export.recipes.recipes import RECIPES
from memorywam_runtime.bundle import open_bundle, read_prompt
from memorywam_runtime.errors import InputError

FRAMES = 11
"""Anchors, and more than once around the ring."""


@pytest.fixture(scope="module", params=["kv-int8", "kv-fp8"])
def table(request, tiny_bundle):
    return random_input_ranges(tiny_bundle, RECIPES[request.param], num_episodes=2, num_frames=3)


def filled(session, bundle, table=None, *, age=lambda: None):
    """What a session remembers after the frames, in the exported form."""
    session.reset(read_prompt(bundle, session.manifest, "random"))
    before = None
    for frame in random_frames(session.contract, FRAMES, seed=2):
        age()
        remember(session, frame, before)
        before = frame
    return Side(session, form_of(session.manifest, table)).kept()


@pytest.fixture(scope="module")
def kept(tiny_bundle, table, tmp_path_factory):
    """By way: wide, as emulated, as the real bundle does; and the wide session."""
    out = tmp_path_factory.mktemp("narrow") / "out"
    quantize_bundle(tiny_bundle, out, RECIPES[table.recipe], table)
    session = policy_from_bundle(tiny_bundle, num_threads=1).session
    real = open_bundle(out, num_threads=1, allow_unverified=True)
    ways = {
        "wide": filled(session, tiny_bundle),
        "emulated": filled(session, tiny_bundle, age=NarrowMemory(session, table).age),
        "real": filled(real, out, table),
    }
    return ways, session


def rms(tensor):
    return float(np.sqrt(np.mean(tensor.astype(np.float64) ** 2)))


def test_it_remembers_what_the_real_bundle_does(kept):
    ways, session = kept
    rows, state = session.memory.rows, ways["real"].state
    assert state == ways["emulated"].state
    for name, wide in ways["wide"].memory.items():
        emulated, real = (ways[way].memory[name] for way in ("emulated", "real"))
        spans = [(rows.slot(slot), rows.num_visual) for slot in range(rows.num_slots)]
        spans.append((rows.gist_table, FRAMES * rows.num_gists))
        for first, count in spans:
            own = slice(first, first + count)
            error = rms(real[:, own] - wide[:, own])
            # Some values lie between two steps, and may be rounded either way.
            assert rms(real[:, own] - emulated[:, own]) <= 0.2 * error + 1e-5 * rms(wide), name
    errors = [rms(ways["real"].memory[name] - wide) for name, wide in ways["wide"].memory.items()]
    assert all(error > 0 for error in errors[1:]), "nothing was rounded"


def test_anchors_gists_and_the_newest_frame_are_left_alone(tiny_bundle, kept, table):
    _, session = kept
    rows = session.memory.rows
    ages = NarrowMemory(session, table)
    session.reset(read_prompt(tiny_bundle, session.manifest, "random"))
    before = None
    for number, frame in enumerate(random_frames(session.contract, rows.num_anchors + 2, seed=3)):
        remembered = {name: array.copy() for name, array in session.calls.memory.items()}
        ages.age()
        first = rows.slot(session.memory.slot_of(number - 1)) if number > rows.num_anchors else 0
        count = rows.num_visual if number > rows.num_anchors else 0
        for name, old in remembered.items():
            differs = (session.calls.memory[name] != old).any(axis=(0, 1, 3))
            assert not differs[:first].any()
            assert not differs[first + count :].any()
            assert differs[first : first + count].any() == (count > 0)
        remember(session, frame, before)
        before = frame


def test_what_is_beyond_the_range_is_cut(tiny_bundle, kept, table):
    _, session = kept
    small = {
        key: msgspec.structs.replace(entry, scales=tuple(one / 100 for one in entry.scales))
        for key, entry in table.entries.items()
    }
    narrow = msgspec.structs.replace(table, entries=small)
    found = filled(session, tiny_bundle, age=NarrowMemory(session, narrow).age)
    rows = session.memory.rows
    end = {"int8": 128, "fp8": 448}
    for name, entry in small.items():
        for slot, frame in enumerate(found.state.slot_frames):
            if slot < rows.num_anchors or frame == FRAMES - 1:
                continue
            held = found.memory[name][:, rows.slot(slot) : rows.slot(slot) + rows.num_visual]
            most = np.abs(held).max(axis=1).ravel() / (np.array(entry.scales) * end[entry.dtype])
            assert 0.99 < most.max() < 2.01, name  # factors of fp8 are powers of two


def test_scales_that_are_missing_are_refused(tiny_bundle, kept, table):
    _, session = kept
    entries = {key: one for key, one in table.entries.items() if key != "memory.01.k"}
    with pytest.raises(InputError, match=r"has no 'memory\.01\.k'"):
        NarrowMemory(session, msgspec.structs.replace(table, entries=entries))
