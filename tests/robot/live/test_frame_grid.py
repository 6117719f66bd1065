"""Each rule of the memory clock on its own."""

from dataclasses import replace

import pytest
from tests.fakes.grids import (
    CAMERAS,
    MS,
    RULES,
    START_MS,
    commits,
    feed,
    frame,
    last_stop,
    opened,
    shape,
)

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.live.frame_grid import FrameGrid
from memorywam_robot.live.grid_rules import (
    CommitGroup,
    GridRules,
    Hold,
    Reset,
    Resume,
    Stop,
    grid_shape_from_contract,
)
from memorywam_runtime.errors import InputError


def test_a_sound_episode_is_committed_group_by_group():
    grid = opened()
    feed(grid, range(9))
    first, second, third = commits(grid.poll(3200 * MS))
    assert (first.slots, second.slots, third.slots) == ((0,), (1, 2, 3, 4), (5, 6, 7, 8))
    assert not any(first.filled + second.filled + third.filled)
    assert third.at_ns == (START_MS + 8 * 240 + 10) * MS
    assert list(third.sets[3]) == list(CAMERAS)
    assert third.sets[3]["head"].number == 8
    assert grid.counts.memory_quality == 1


def test_one_missing_slot_is_filled_with_its_earlier_neighbour_and_marked():
    grid = opened()
    feed(grid, [*range(6), 7, 8])
    (group,) = commits(grid.poll(9000 * MS))[2:3]
    assert group.filled == (False, True, False, False)
    assert [images["head"].number for images in group.sets] == [5, 5, 7, 8]
    assert grid.counts.memory_quality == 8 / 9


def test_what_came_of_a_filled_slot_is_let_go():
    grid = opened()
    feed(grid, range(7))
    feed(grid, [7], cameras=("head",))
    feed(grid, [8])
    assert commits(grid.poll(3100 * MS))[2].filled == (False, False, True, False)
    assert grid.num_open == 0


def test_a_missing_first_slot_takes_the_nearer_of_the_last_frame_and_the_next():
    grid = opened()
    feed(grid, [*range(5), 6, 7, 8])
    group = commits(grid.poll(9000 * MS))[2]
    assert [images["head"].number for images in group.sets] == [4, 6, 7, 8]


@pytest.mark.parametrize("lost", [0, 1, 4])
def test_an_anchor_is_never_filled(lost):
    grid = opened()
    feed(grid, [slot for slot in range(9) if slot != lost])
    said = grid.poll(9000 * MS)
    assert not any(any(each.filled) for each in commits(said))
    assert [type(each) for each in said if not isinstance(each, CommitGroup)] == [Reset, Hold, Stop]
    hold, stop = said[-2:]
    assert stop.at_ns - hold.at_ns == RULES.stop_after_ms * MS
    assert isinstance(hold, Hold)
    assert "anchor" in hold.reason


def test_two_missing_of_a_group_hold_until_frames_are_back():
    grid = opened()
    feed(grid, [*range(6), 8, 9])
    said = grid.poll(3400 * MS)
    assert [type(each) for each in said[-3:]] == [Hold, Resume, CommitGroup]
    assert said[-3].at_ns == (START_MS + 7 * 240 + 150) * MS
    assert said[-2].at_ns == (START_MS + 8 * 240 + 10) * MS
    assert commits(said)[-1].filled == (False, True, True, False)
    assert (grid.counts.holds, grid.counts.missing) == (1, 2)


def test_a_third_filled_group_within_the_window_holds_and_one_after_it_does_not():
    rules = GridRules()
    apart = int(rules.filled_window_s * 1e9 // (240 * MS * 4)) + 3
    for third, holds in ((4, 1), (apart, 0)):
        grid = opened(rules=replace(rules, max_waiting=999))
        lost = {4 * group + 2 for group in (2, 3, third)}
        feed(grid, [slot for slot in range(4 * third + 5) if slot not in lost])
        grid.poll(10**12)
        assert grid.counts.filled == len(lost)
        assert grid.counts.holds == holds + 1  # the last is the end of the frames
        grid.reset(1, 10**12)
        assert grid.counts.filled == grid.counts.holds == 0


def test_a_late_frame_is_taken_while_its_group_is_open_and_not_after():
    grid = opened()
    feed(grid, [*range(6), 7])
    feed(grid, [6], delay_ms=600, cameras=("head",))
    assert grid.put(frame("wrist", 6, START_MS + 6 * 240), 3045 * MS) == "late"
    feed(grid, [8], delay_ms=130)
    feed(grid, [10, 11, 12])
    (group,) = commits(grid.poll(3900 * MS))[2:3]
    assert not any(group.filled)
    assert grid.put(frame("head", 90, START_MS + 8 * 240), 3901 * MS) == "too_late"


@pytest.mark.parametrize(
    ("image", "fate"),
    [
        (frame("head", 1, 1240), "duplicate"),
        (frame("head", 91, 1241), "taken"),
        (frame("head", 91, 1000), "too_late"),
        (frame("head", 91, 999), "before_gate"),
        (frame("head", 91, 2001), "from_future"),
        (frame("head", 91, 1990, epoch=0), "old_epoch"),
        (frame("head", 91, 1990), "accepted"),
    ],
)
def test_each_fate_is_told_and_counted(image, fate):
    grid = opened()
    feed(grid, range(4))
    before = grid.counts.fates[fate]
    assert grid.put(image, 2000 * MS) == fate
    assert grid.counts.fates[fate] == before + 1


def test_the_first_frame_of_a_camera_keeps_its_slot():
    grid = opened()
    grid.put(frame("head", 0, START_MS), 1010 * MS)
    assert grid.put(frame("head", 1, START_MS + 1), 1010 * MS) == "taken"
    grid.put(frame("wrist", 0, START_MS), 1010 * MS)
    (group,) = commits(grid.poll(1011 * MS))
    assert group.sets[0]["head"].number == 0


@pytest.mark.parametrize("after_ms", [0, 1])
def test_a_frame_at_the_very_end_of_a_hold_still_saves_the_episode(after_ms):
    grid = opened(shape(cameras=("head",)))
    feed(grid, range(6), cameras=("head",))
    stop_ms = int(START_MS + 7 * 240 + RULES.late_ms + RULES.stop_after_ms) + after_ms
    grid.poll(stop_ms * MS)
    grid.put(frame("head", 99, stop_ms - 5), stop_ms * MS)
    assert grid.is_stopped == bool(after_ms)
    assert any(isinstance(each, Resume) for each in grid.poll(stop_ms * MS)) != bool(after_ms)


def test_frames_out_of_order_go_to_their_slots_and_are_counted():
    grid = opened(shape(60, cameras=("head",)))
    for slot, at_ms in ((0, 0), (2, 130), (1, 140), (3, 190), (4, 250)):
        grid.put(frame("head", slot, START_MS + slot * 60), (START_MS + at_ms) * MS)
    group = commits(grid.poll(1250 * MS))[1]
    assert [images["head"].number for images in group.sets] == [1, 2, 3, 4]
    assert grid.counts.reordered == 1


@pytest.mark.parametrize(
    ("apart_ms", "warned", "fate"),
    [(8, 0, "accepted"), (9, 1, "accepted"), (16, 1, "accepted"), (17, 0, "skewed")],
)
def test_skew_is_judged_in_periods_of_the_cameras(apart_ms, warned, fate):
    grid = opened()
    grid.put(frame("head", 0, START_MS), 1030 * MS)
    assert grid.put(frame("wrist", 0, START_MS + apart_ms), 1030 * MS) == fate
    assert grid.counts.skew_warned == warned
    assert len(commits(grid.poll(1031 * MS))) == (fate == "accepted")
    assert grid.counts.worst_skew_ns == (apart_ms * MS if fate == "accepted" else 0)


def test_nothing_is_taken_before_the_gate_is_open_or_after_a_stop():
    grid = FrameGrid(shape(), RULES)
    with pytest.raises(InputError, match="stopped; expected a shut gate"):
        grid.open_gate(0)
    grid.reset(1, 0)
    assert grid.due_ns() is None
    assert grid.put(frame("head", 0, 1), 2 * MS) == "before_gate"
    grid.open_gate(5 * MS)
    assert grid.due_ns() == 5 * MS
    with pytest.raises(InputError, match="is open"):
        grid.open_gate(6 * MS)
    assert [type(each) for each in grid.poll(10_000 * MS)] == [Reset, Hold, Stop]
    assert grid.is_stopped
    assert grid.put(frame("head", 0, 9999), 10_001 * MS) == "after_stop"


def test_due_is_the_next_slot_that_lacks_a_set():
    grid = opened()
    feed(grid, [0, 1], delay_ms=0)
    assert grid.due_ns() == (START_MS + 2 * 240) * MS
    feed(grid, [2], delay_ms=0, cameras=("head",))
    assert grid.due_ns() == (START_MS + 2 * 240) * MS


def test_a_result_of_an_old_epoch_is_refused():
    grid = opened()
    feed(grid, range(1))
    assert grid.takes_result(1)
    grid.reset(8, 2000 * MS)
    assert not grid.done(1, 0, 2000 * MS)
    assert not grid.takes_result(1)
    assert grid.counts.old_results == 2


def test_an_instruction_change_resets_unless_told_to_keep():
    grid = opened()
    feed(grid, range(3))
    grid.set_instruction(8, 1700 * MS, "keep")
    feed(grid, range(3, 5))
    assert [each.instruction_id for each in commits(grid.poll(2000 * MS))] == [7, 8]
    grid.set_instruction(9, 2001 * MS)
    (reset,) = grid.poll(2002 * MS)
    assert isinstance(reset, Reset)
    assert (reset.epoch, reset.instruction_id, grid.due_ns()) == (2, 9, None)


def test_memory_goes_on_while_held_up_to_a_number():
    grid = opened(rules=replace(RULES, max_hold_frames=2))
    feed(grid, range(5))
    grid.set_held(2000 * MS, is_held=True)
    feed(grid, range(5, 13))
    grid.set_held(3895 * MS, is_held=False)
    feed(grid, range(13, 17))
    assert [each.is_held for each in commits(grid.poll(4900 * MS))] == [0, 0, 1, 1, 0]
    assert grid.counts.hold_frames == 2
    grid.set_held(4901 * MS, is_held=True)
    feed(grid, range(17, 29))
    reason = last_stop(grid.poll(8000 * MS)).reason
    assert "3 frames in a row remembered while held" in reason


def test_a_memory_that_falls_behind_is_told_and_then_stops_the_robot():
    grid = opened(rules=replace(RULES, max_waiting=3))
    feed(grid, range(5))
    assert not grid.is_behind
    feed(grid, range(5, 9))
    assert grid.is_behind
    assert grid.done(1, 0, 2940 * MS)
    assert not grid.is_behind
    with pytest.raises(InputError, match="in order"):
        grid.done(1, 2, 2941 * MS)
    feed(grid, range(9, 13))
    assert not grid.is_stopped
    feed(grid, range(13, 17))
    assert "4 groups wait for memory" in last_stop(grid.poll(4900 * MS)).reason


def test_an_outage_longer_than_the_cap_stops_at_once():
    grid = opened(shape(60), replace(RULES, stop_after_ms=10_000))
    feed(grid, range(9))
    hold, stop = grid.poll(9000 * MS)[-2:]
    assert isinstance(hold, Hold)
    assert stop.at_ns == (START_MS + 60 * (9 + RULES.max_outage_slots) + 150) * MS
    assert "9 slots in a row" in last_stop([stop]).reason


def test_time_that_runs_backwards_and_strange_cameras_are_refused():
    grid = opened()
    with pytest.raises(InputError, match="expected time to go on"):
        grid.poll(START_MS * MS - 1)
    with pytest.raises(InputError, match="expected one of wrist, head"):
        grid.put(frame("third", 0, START_MS), START_MS * MS)


def test_the_grid_of_a_contract():
    contract = contract_from_preset("demo")
    views = contract.observations
    found = grid_shape_from_contract(contract)
    assert found.cameras == views.cameras
    assert found.period_ns == round(views.steps_per_image * 1e9 / views.control_hz)
    assert found.images_per_frame == contract.images_per_frame


@pytest.mark.parametrize("name", ["late_ms", "stop_after_ms", "camera_hz", "max_waiting"])
def test_rules_that_are_none_are_refused(name):
    with pytest.raises(InputError, match=name):
        GridRules(**{name: 0})
    with pytest.raises(InputError, match="max_behind is -1"):
        GridRules(max_behind=-1)
    with pytest.raises(InputError, match="a grid of 0 cameras"):
        shape(cameras=())
