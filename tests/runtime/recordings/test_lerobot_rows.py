"""A row a control step: the newest observation made by then, and what was sent after it."""

import numpy as np
import pytest
from tests.fakes.recordings import state_at
from tests.fakes.step_recordings import action_of, another, episode, recording_of, saw, sent

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Event, Sent
from memorywam_runtime.recordings import lerobot_rows
from memorywam_runtime.recordings.lerobot_rows import EpisodeRows


def rows_of(events, **changes):
    return list(EpisodeRows(recording_of(events, **changes)))


def seen(rows):
    return [row.sight.step for row in rows]


def test_a_row_a_step_with_the_newest_observation():
    rows = rows_of(episode(num_steps=7, stride=3))
    assert [row.step for row in rows] == list(range(7))
    assert seen(rows) == [0, 0, 0, 3, 3, 3, 6]
    for row in rows:
        assert row.action.dtype == row.sight.state.dtype == np.float32
        np.testing.assert_array_equal(row.action, action_of(row.step + 1).astype(np.float32))
        np.testing.assert_array_equal(row.sight.state, state_at(row.sight.step).astype(np.float32))
        assert row.state is row.sight.state
        assert row.sent_ns == sent(row.step + 1).received_ns
        assert row.task == "press « the » button"
    assert rows[0].sight is rows[2].sight
    assert rows[3].sight.captured_ns == saw(3).captured_ns


def test_a_state_that_was_measured_as_the_step_began_is_the_rows():
    events = [saw(0), sent(1, state_at(50)), sent(2), sent(3, state_at(52)), saw(3), sent(4)]
    rows = rows_of(events)
    found = np.array([row.state for row in rows])
    expected = np.array([state_at(k) for k in (50, 0, 52, 3)]).astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert seen(rows) == [0, 0, 0, 3]


@pytest.mark.parametrize("late", [1, 2, 3])
def test_an_observation_that_arrives_late_counts_from_its_own_step(late):
    """As a loop that keeps time tells of it: actions went on while the images came."""
    events = episode()
    place = next(k for k, one in enumerate(events) if getattr(one, "step", 0) == 5)
    events.insert(place + late - 1, events.pop(place - 1))
    assert seen(rows_of(events)) == [0, 0, 0, 0, 4, 4, 4, 4]


def test_an_observation_that_arrives_early_waits_for_its_step():
    events = [saw(0), saw(2), sent(1), sent(2), saw(4), sent(3), sent(4), sent(5)]
    assert seen(rows_of(events)) == [0, 0, 2, 2, 4]


def test_of_two_observations_after_as_many_steps_the_last_counts():
    rows = rows_of([saw(0, of=30), saw(0, of=31), sent(1)])
    np.testing.assert_array_equal(rows[0].sight.state, state_at(31).astype(np.float32))


def test_another_instruction_begins_with_its_step():
    events = episode()
    events.insert(4, another(3, "stop", keep_memory=True))
    rows = rows_of(events)
    assert [row.task for row in rows] == ["press « the » button"] * 3 + ["stop"] * 5
    assert seen(rows) == [0, 0, 0, 0, 4, 4, 4, 4]


def test_from_empty_memory_observations_count_from_there():
    told = another(3, "again", keep_memory=False)
    events = [saw(0), sent(1), sent(2), sent(3), told, saw(0), sent(4), sent(5), saw(2), sent(6)]
    rows = rows_of(events)
    assert seen(rows) == [0, 0, 0, 3, 3, 5]
    assert [row.task for row in rows][2:4] == ["press « the » button", "again"]


def test_an_observation_that_a_fresh_start_overtakes_does_not_count():
    events = [saw(0), saw(4), sent(1), another(1, "again", keep_memory=False), saw(0), sent(2)]
    assert seen(rows_of([*events, sent(3)])) == [0, 1, 1]


def test_nothing_is_seen_before_it_is_there():
    rows = EpisodeRows(recording_of([saw(1), sent(1), sent(2)]))
    assert [row.step for row in rows] == [1]
    assert rows.num_unseen == 1


def test_what_is_left_out_is_counted():
    rows = EpisodeRows(recording_of([sent(1), sent(2), saw(2), sent(3), saw(3), saw(5)]))
    found = list(rows)
    assert [row.step for row in found] == [2]
    assert (rows.num_unseen, rows.num_unused, rows.cut) == (2, 2, None)


@pytest.mark.parametrize(
    ("events", "unseen", "unused"),
    [([], 0, 0), ([saw(0), saw(4)], 0, 2), ([sent(1)], 1, 0), ([sent(1), saw(1)], 1, 1)],
)
def test_no_rows(events, unseen, unused):
    rows = EpisodeRows(recording_of(events))
    assert list(rows) == []
    assert (rows.num_unseen, rows.num_unused) == (unseen, unused)


def test_progress_is_told():
    told: list[int] = []
    events = episode()
    list(EpisodeRows(recording_of(events), told.append))
    assert told == list(range(1, len(events) + 1))


def test_observations_without_end_are_not_all_kept():
    events: list[Event] = [saw(0), sent(1), *[saw(step) for step in range(1, 200)]]
    told: list[int] = []
    rows = EpisodeRows(recording_of(events), told.append)
    assert len(list(rows)) == 1
    assert (
        rows.cut == "found 64 observations without an action after step 0; what follows is left out"
    )
    assert told[-1] == 2 + lerobot_rows._MOST_AHEAD


@pytest.mark.parametrize("step", [2, 4, 1])
def test_actions_out_of_order_are_refused(step):
    with pytest.raises(
        InputError, match=rf"the action of step {step} after that of 2; expected step 3"
    ):
        rows_of([saw(0), sent(1), sent(2), sent(step)])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_numbers_that_float32_cannot_hold_are_refused(value):
    wrong = Sent(step=1, action=np.array([0.0, value, 0.0]), received_ns=0)
    with pytest.raises(InputError, match=r"one.mcap: found .* in the action of step 1"):
        rows_of([saw(0), wrong])
    one = saw(0)
    one.observation.state[1] = value
    with pytest.raises(InputError, match="in the state at step 0"):
        rows_of([one, sent(1)])
    with pytest.raises(InputError, match="in the state as step 1 began"):
        rows_of([saw(0), sent(1, np.array([0.0, 0.0, value]))])
