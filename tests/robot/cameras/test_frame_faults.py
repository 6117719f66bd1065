import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.cameras import view

from memorywam_robot.cameras.frame_faults import (
    FaultReplay,
    FaultSchedule,
    Shot,
    faults_from_json,
    read_faults,
)
from memorywam_runtime.errors import InputError

PERIOD = 10_000_000


def schedule(*faults):
    return faults_from_json(json.dumps({"version": 1, "faults": faults}))


def shot(index):
    at_ns = index * PERIOD
    return Shot(image=view(index, 6, 8), number=100 + index, captured_ns=at_ns, due_ns=at_ns)


def replayed(faults, count, *, each=True, camera="head"):
    """Return what came out, and when, if asked at every shot or only at the end."""
    replay = FaultReplay(faults, camera)
    out: list[Shot] = []
    for index in range(count):
        replay.put(shot(index))
        if each:
            out += replay.due(index * PERIOD)
    out += replay.due(10**15)
    return out


def numbers(shots):
    return [shot.number - 100 for shot in shots]


def test_without_faults_all_comes_out_as_it_went_in():
    out = replayed(FaultSchedule(), 20)
    assert numbers(out) == list(range(20))
    assert all(np.array_equal(one.image, shot(k).image) for k, one in enumerate(out))
    assert [one.due_ns for one in out] == [k * PERIOD for k in range(20)]


def test_drop():
    assert numbers(replayed(schedule({"kind": "drop", "at": 2, "count": 3}), 7)) == [0, 1, 5, 6]


def test_late_holds_back_what_comes_after():
    out = replayed(schedule({"kind": "late", "at": 2, "by_ms": 25}), 7)
    assert numbers(out) == list(range(7))
    assert [one.due_ns / PERIOD for one in out] == [0, 1, 4.5, 4.5, 4.5, 5, 6]
    assert [one.captured_ns // PERIOD for one in out] == list(range(7))


def test_late_frames_wait_until_they_are_due():
    replay = FaultReplay(schedule({"kind": "late", "at": 0, "by_ms": 25}))
    replay.put(shot(0))
    assert replay.due_ns() == 25_000_000
    assert list(replay.due(24_999_999)) == []
    assert numbers(replay.due(25_000_000)) == [0]
    assert replay.due_ns() is None


def test_duplicate():
    out = replayed(schedule({"kind": "duplicate", "at": 1, "count": 2}), 4)
    assert numbers(out) == [0, 1, 1, 2, 2, 3]


def test_reorder():
    out = replayed(schedule({"kind": "reorder", "at": 1}, {"kind": "reorder", "at": 3}), 6)
    assert numbers(out) == [0, 2, 1, 4, 3, 5]


def test_freeze_repeats_the_image_before_while_numbers_go_on():
    out = replayed(schedule({"kind": "freeze", "at": 2, "count": 3}), 7)
    assert numbers(out) == list(range(7))
    shown = [next(k for k in range(7) if np.array_equal(one.image, shot(k).image)) for one in out]
    assert shown == [0, 1, 1, 1, 1, 5, 6]


def test_freeze_from_the_first_frame_shows_the_first():
    out = replayed(schedule({"kind": "freeze", "at": 0, "count": 3}), 3)
    assert all(np.array_equal(one.image, shot(0).image) for one in out)


def test_black_and_covered():
    out = replayed(schedule({"kind": "black", "at": 1}, {"kind": "covered", "at": 2}), 4)
    assert not out[1].image.any()
    assert len(np.unique(out[2].image.reshape(-1, 3), axis=0)) == 1
    assert 0 < out[2].image.mean() <= shot(2).image.mean() / 4
    assert np.array_equal(out[3].image, shot(3).image)


def test_a_time_and_an_image_fault_may_meet():
    out = replayed(schedule({"kind": "black", "at": 1}, {"kind": "duplicate", "at": 1}), 3)
    assert numbers(out) == [0, 1, 1, 2]
    assert not out[1].image.any()
    assert not out[2].image.any()


def test_unplug_takes_what_was_on_its_way_and_ends_after_its_time():
    faults = schedule(
        {"kind": "late", "at": 2, "by_ms": 100}, {"kind": "unplug", "at": 4, "replug_after_ms": 25},
        {"kind": "duplicate", "at": 5}, {"kind": "duplicate", "at": 8},
    )  # fmt: skip
    out = replayed(faults, 10)
    assert numbers(out) == [0, 1, 7, 8, 8, 9]
    assert out[2].due_ns == 7 * PERIOD
    replay = FaultReplay(faults)
    for index in range(5):
        replay.put(shot(index))
    assert [replay.is_unplugged(ns) for ns in (40_000_000, 64_999_999, 65_000_000)] == [
        True, True, False,
    ]  # fmt: skip


def test_unplug_for_ever():
    assert numbers(replayed(schedule({"kind": "unplug", "at": 3}), 50)) == [0, 1, 2]


def test_faults_of_another_camera_are_not_ours():
    faults = schedule({"kind": "drop", "at": 1, "camera": "left_wrist"}, {"kind": "drop", "at": 2})
    assert numbers(replayed(faults, 4)) == [0, 1, 3]
    assert numbers(replayed(faults, 4, camera="left_wrist")) == [0, 3]


def a_fault(kind, at, size):
    fields = {"late": {"by_ms": size * 7.0, "count": 2}, "unplug": {"replug_after_ms": size * 9.0}}
    if kind in ("unplug", "reorder"):
        return {"kind": kind, "at": at, **fields.get(kind, {})}
    return {"kind": kind, "at": at, "count": size, **fields.get(kind, {})}


KINDS = ("drop", "late", "duplicate", "reorder", "freeze", "black", "covered", "unplug")


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4), st.integers(0, 3)), max_size=8)
)
def test_what_comes_out_is_what_the_schedule_says_and_however_often_one_asks(steps):
    at, faults = 0, []
    for kind, size, gap in steps:
        faults.append(a_fault(kind, at + gap, size))
        at += gap + max(size, 2)
    plan = schedule(*faults)
    often, seldom = replayed(plan, at + 4), replayed(plan, at + 4, each=False)
    assert [(one.number, one.due_ns) for one in often] == [
        (one.number, one.due_ns) for one in seldom
    ]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(often, seldom, strict=True))
    assert [one.due_ns for one in often] == sorted(one.due_ns for one in often)
    assert all(one.due_ns >= one.captured_ns for one in often)
    # Each frame comes once, but for those of which the schedule says otherwise.
    by_kind: dict[str, set[int]] = {kind: set() for kind in KINDS}
    for fault in plan.faults:
        by_kind[type(fault).__name__.lower()] |= set(fault.frames)
    if not by_kind["unplug"]:
        for index in range(at + 4):
            times = 0 if index in by_kind["drop"] else 2 if index in by_kind["duplicate"] else 1
            assert numbers(often).count(index) == times
    for one in often:
        index = one.number - 100
        if index not in by_kind["freeze"] | by_kind["black"] | by_kind["covered"]:
            assert np.array_equal(one.image, shot(index).image)
        assert (not one.image.any()) == (index in by_kind["black"]) or index in by_kind["freeze"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no fault schedule"),
        ("[]", "Expected `object`"),
        ('{"version": 2}', "2"),
        ('{"faults": [{"kind": "melt", "at": 1}]}', "'melt'.*KIND of drop, late, duplicate"),
        ('{"faults": [{"at": 1}]}', "kind"),
        ('{"faults": [{"kind": "drop"}]}', "`at`"),
        ('{"faults": [{"kind": "drop", "at": 1, "by_ms": 3}]}', "by_ms"),
        ('{"faults": [{"kind": "late", "at": 1}]}', "by_ms"),
        (
            '{"faults": [{"kind": "late", "at": 1, "by_ms": -3}]}',
            r"late at 1.*by_ms -3.*expected 0 to",
        ),
        ('{"faults": [{"kind": "drop", "at": -1}]}', r"at -1; expected 0 to"),
        ('{"faults": [{"kind": "drop", "at": 1, "count": 0}]}', "count 0; expected 1"),
        ('{"faults": [{"kind": "unplug", "at": 1, "replug_after_ms": -1}]}', "replug_after_ms -1"),
        ('{"faults": [], "more": 1}', "more"),
        (
            '{"faults": [{"kind": "drop", "at": 1, "count": 4}, {"kind": "reorder", "at": 4}]}',
            r"faults\[1\] \(reorder at 4\) and faults\[0\] \(drop at 1\) both change the time",
        ),
        (
            '{"faults": [{"kind": "reorder", "at": 1}, {"kind": "late", "at": 2, "by_ms": 1}]}',
            "both change the time",
        ),
        (
            '{"faults": [{"kind": "black", "at": 1}, {"kind": "freeze", "at": 1, "camera": "a"}]}',
            "both change the image",
        ),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(text, match):
    with pytest.raises(InputError, match=match):
        faults_from_json(text)


def test_the_same_frame_of_two_cameras_may_fail():
    schedule(
        {"kind": "drop", "at": 1, "camera": "a"}, {"kind": "drop", "at": 1, "camera": "b"},
        {"kind": "drop", "at": 2},
    )  # fmt: skip


def test_a_schedule_in_a_file(tmp_path):
    path = tmp_path / "faults.json"
    with pytest.raises(InputError, match=r"faults\.json cannot be read"):
        read_faults(path)
    path.write_text('{"faults": [{"kind": "drop", "at": 3}]}')
    assert read_faults(path).faults[0].at == 3
    path.write_text("{")
    with pytest.raises(InputError, match=r"faults\.json: no fault schedule"):
        read_faults(path)
