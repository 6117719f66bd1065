"""Spans are kept, counted and summed up as they were."""

import pytest

from memorywam_runtime.timing import Timings, percentiles_of


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved, ns."""
    now = [1000]
    monkeypatch.setattr("memorywam_runtime.timing.time.monotonic_ns", lambda: now[0])
    return now


def test_a_span_is_the_time_of_its_body(clock):
    timings = Timings(("a", "b"))
    with timings.span("a"):
        clock[0] += 3_000_000
    clock[0] += 5_000_000
    with timings.span("a"):
        clock[0] += 1_000_000
    assert timings.milliseconds("a").tolist() == [3.0, 1.0]
    assert timings.milliseconds("b").tolist() == []


def test_a_span_is_kept_when_its_body_fails(clock):
    timings = Timings(("a",))
    with pytest.raises(KeyError), timings.span("a"):
        clock[0] += 2_000_000
        raise KeyError
    assert timings.milliseconds("a").tolist() == [2.0]


def test_a_timed_call_records_every_turn(clock):
    timings = Timings(("a",))
    made: list[None] = []

    def call():
        clock[0] += 4_000_000
        made.append(None)

    timed = timings.timed("a", call)
    assert made == []
    timed()
    timed()
    assert len(made) == 2
    assert timings.milliseconds("a").tolist() == [4.0, 4.0]


def test_only_the_newest_are_kept_but_all_are_counted():
    timings = Timings(("a",), capacity=3)
    for ms in (9, 9, 1, 2, 3):
        timings.add("a", ms * 1_000_000)
    assert sorted(timings.milliseconds("a")) == [1.0, 2.0, 3.0]
    assert timings.percentiles()["a"]["count"] == 5


def test_restart_forgets_everything_and_takes_a_new_capacity():
    timings = Timings(("a",), capacity=2)
    timed = timings.timed("a", lambda: None)
    for _ in range(3):
        timings.add("a", 7)
    timings.restart(4)
    assert timings.milliseconds("a").tolist() == []
    assert timings.percentiles() == {}
    for ms in (1, 2, 3, 4):
        timings.add("a", ms * 1_000_000)
    assert timings.milliseconds("a").tolist() == [1.0, 2.0, 3.0, 4.0]
    timed()  # prepared before: it goes on into the same timings
    assert timings.percentiles()["a"]["count"] == 5


def test_percentiles_are_those_of_the_kept_spans():
    timings = Timings(("a", "never"), capacity=200)
    for ms in range(101):
        timings.add("a", ms * 1_000_000)
    assert timings.percentiles() == {
        "a": {"count": 101.0, "p50": pytest.approx(50), "p95": pytest.approx(95),
              "p99": pytest.approx(99)}
    }  # fmt: skip


def test_percentiles_of_times():
    found = percentiles_of([1.0, 2.0, 9.0])
    assert (found["count"], found["p50"]) == (3, 2.0)
    assert found["p50"] < found["p95"] < found["p99"] < 9.0
