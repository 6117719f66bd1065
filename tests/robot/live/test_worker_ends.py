"""A worker's thread that dies or hangs: the episode says of what, and nobody waits for it."""

import sys
import threading
import time
from collections import deque

import pytest
from tests.fakes.live import BenchPolicy
from tests.fakes.live_robot import NowRobot, run_of

from memorywam_robot.live.tasks import Act, Begin, Failed, Finish, Remember
from memorywam_robot.live.worker import Worker, WorkerThread
from memorywam_runtime.errors import DeviceError

SAID = "the worker's thread ended: SystemExit: the driver went away"
GONE = SystemExit("the driver went away")
"""What no backend should raise, and some do: it is not an `Exception`."""


class Ear:
    """A teller that hears how it ended."""

    def __init__(self):
        self.ended = []

    def __getattr__(self, name):
        return lambda *words: None

    def end(self, result):
        self.ended.append(result)


@pytest.mark.parametrize("what", ["reset", "remember", "begin_act", "step", "chunk"])
def test_the_ending_names_what_the_thread_died_of(what):
    policy, robot, ear = BenchPolicy(), NowRobot(), Ear()
    policy.failing[what] = deque([GONE])
    run = run_of(policy, robot, tellers=[ear])
    begun_s = time.monotonic()
    try:
        results = run.episodes([3, 4])
        assert time.monotonic() - begun_s < 5, "or it was a time-out"
        with pytest.raises(DeviceError, match="SystemExit: the driver went away; expected one"):
            run.episodes([5])
    finally:
        run.close()
    (result,) = results
    assert result.aborted == SAID
    assert result.remark == f"aborted: {SAID}"
    assert result.counts.reasons == [f"stop: {SAID}"]
    assert ear.ended == [result]
    assert robot.body.stops == [SAID]
    assert robot.seeds == [3], "nothing is begun with a worker that is gone"


def test_one_that_dies_after_the_last_step_is_named_too():
    class Late(Worker):
        def _do(self):
            if isinstance(self._tasks[0][0], Finish):
                raise GONE
            super()._do()

    robot = NowRobot()
    run = run_of(BenchPolicy(), robot)
    run._thread.close()
    run._thread = WorkerThread(Late(run.policy))
    (result,) = run.episodes([3])
    assert result.aborted == SAID
    assert result.num_steps == robot.num_steps
    assert robot.body.stops == ["the episode is over"]


def test_a_closed_run_says_so():
    run = run_of(BenchPolicy(), NowRobot())
    run.close()
    with pytest.raises(DeviceError, match="ended: it was closed; expected one that turns"):
        run.episodes([1])


def test_a_failure_is_told_even_if_giving_up_fails_in_its_turn():
    """The first of two errors is the cause."""
    policy = BenchPolicy()
    policy.failing["step"] = deque([RuntimeError("out of memory")])
    worker = Worker(policy)
    for task in (
        Begin(epoch=1, instruction="go", seed=0, max_steps=9),
        Remember(epoch=1, frame=0, observations=()),
        Act(epoch=1, frame=0, requested_at=0, state=None),  # type: ignore[arg-type]
    ):
        worker.put(task)
    while worker.turn() != "prepare":
        pass
    assert worker._acting is not None
    worker._acting[1].give_up = lambda: sys.exit("and gone")  # type: ignore[method-assign]
    with pytest.raises(SystemExit, match="and gone"):
        worker.turn()
    (failed,) = [event for event in worker.events() if isinstance(event, Failed)]
    assert failed.reason == "RuntimeError: out of memory"


class HungPolicy(BenchPolicy):
    """Its reset waits for whoever lets it go."""

    def __init__(self):
        super().__init__()
        self.is_in, self.go = threading.Event(), threading.Event()

    def reset(self, instruction, *, seed=0, max_steps=None):
        self.is_in.set()
        self.go.wait(20)


def test_a_policy_that_hangs_blocks_nobody():
    policy = HungPolicy()
    thread = WorkerThread(Worker(policy))
    thread.put(Begin(epoch=1, instruction="go", seed=0, max_steps=9))
    try:
        assert policy.is_in.wait(5)
        started = time.monotonic()
        for frame in range(2000):
            thread.put(Remember(epoch=1, frame=frame, observations=()))
            assert thread.events() == []
        assert time.monotonic() - started < 1.0
        started = time.monotonic()
        assert not thread.close(timeout_s=0.1)
        assert 0.1 <= time.monotonic() - started < 1.0
        assert thread.is_alive
    finally:
        policy.go.set()
    assert thread.close(5.0)
    assert not thread.is_alive
