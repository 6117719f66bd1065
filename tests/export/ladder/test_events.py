"""A reset, a snapshot, an instruction or a full memory that misbehaves is noticed."""

import numpy as np
import pytest
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session
from memorywam_export.ladder.events import FORGOTTEN, event_checks, play_events
from memorywam_export.parity.parity import drive, random_script
from memorywam_runtime.session import Session

CONTRACT = contract_with()
MODEL = random_model(CONTRACT)
SCRIPT = random_script(CONTRACT, 7, seed=1)


def played(harm=lambda session: None, script=SCRIPT, **options):
    session = eager_session(MODEL, identity(CONTRACT), **options)
    trace = drive(session, script, lambda _: None, "graph")
    harm(session)
    return play_events(session, script, trace, "graph", "fp64")


def failed(trace, truth=None):
    return {check.what: check for check in event_checks([trace], truth or {}) if not check.ok}


def test_a_sound_session_keeps_every_promise():
    trace = played()
    checks = event_checks([trace], {})
    assert [check.what for check in checks] == [
        "reset in the middle",
        "snapshot and restore",
        "instruction changed and changed back",
        "instruction change, memory kept",
        FORGOTTEN,
        "capacity: a frame too many",
    ]
    assert all(check.ok for check in checks)
    kept, forgotten = trace.made["instruction change, memory kept"], trace.made[FORGOTTEN]
    assert kept.shape == (2, 16, 14)
    assert forgotten.shape == (3, 16, 14)


def test_a_session_of_one_frame_has_fewer_events_ahead():
    trace = played(script=SCRIPT.first(1))
    assert failed(trace) == {}
    assert trace.made[FORGOTTEN].shape == (1, 16, 14)


def test_a_reset_that_leaves_something_is_noticed():
    def harm(session):
        true = session.reset

        def reset(text=None):
            kept = session.backend.read(session.calls.memory["memory.00.k"])
            true(text)
            session.backend.write(session.calls.memory["memory.00.k"], kept + 1)
            session.memory.num_table_places = lambda frames: frames + 1

        session.reset = reset

    assert "reset in the middle" in failed(played(harm))


def test_a_snapshot_that_loses_a_tensor_is_noticed():
    def harm(session):
        true = session.restore

        def restore(snapshot):
            true(snapshot)
            session.backend.zero(session.calls.memory["memory.01.v"])

        session.restore = restore

    assert set(failed(played(harm))) >= {"snapshot and restore"}


def test_an_instruction_that_is_not_taken_is_noticed():
    sound = played()

    def harm(session):
        true = session.set_text
        session.set_text = lambda text: None if session.memory.num_frames else true(text)

    lazy = played(harm)
    bad = {check.what for check in event_checks([sound, lazy], {}) if not check.ok}
    assert bad == {"instruction change, memory kept"}


def test_the_reference_decides_where_it_can():
    trace = played()
    wrong = trace.made[FORGOTTEN] + 0.1
    bad = failed(trace, {FORGOTTEN: wrong})
    assert list(bad) == [FORGOTTEN]
    assert bad[FORGOTTEN].max_abs == pytest.approx(0.1, rel=1e-4)
    assert bad[FORGOTTEN].worst == "against the reference"


def test_a_full_memory_that_takes_a_frame_is_noticed():
    def harm(session):
        session.memory.check_capacity = lambda: None

    bad = failed(played(harm))
    assert bad["capacity: a frame too many"].worst == (
        "took the frame, though the policy is 'refuse'"
    )


def test_a_full_memory_that_changes_while_it_refuses_is_noticed():
    def harm(session):
        true = Session.remember

        def remember(*arguments, **options):
            if session.memory.num_frames == session.memory.max_frames:
                session.backend.zero(session.calls.memory["memory.00.k"])
            return true(session, *arguments, **options)

        session.remember = remember

    assert failed(played(harm))["capacity: a frame too many"].worst == "refused, but memory changed"


def test_nothing_finite_is_nothing_equal():
    trace = played()
    broken = np.full_like(trace.made[FORGOTTEN], np.nan)
    assert failed(trace, {FORGOTTEN: broken})[FORGOTTEN].max_abs == np.inf
    assert failed(trace, {FORGOTTEN: broken[:1]})[FORGOTTEN].max_abs == np.inf
