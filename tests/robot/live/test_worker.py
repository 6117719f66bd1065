"""The worker: frames wait for one denoising step at most, and epochs leave each other alone."""

import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.live import NAN_CHUNK, BenchPolicy, at

from memorywam_robot.live.tasks import (
    Act,
    Begin,
    Begun,
    ChunkLost,
    ChunkMade,
    ChunkReplaced,
    Event,
    Failed,
    Finish,
    Finished,
    FrameRemembered,
    Remember,
    See,
)
from memorywam_robot.live.worker import Worker, WorkerThread
from memorywam_runtime.errors import DeviceError, MemorywamError


def begin(epoch=1, instruction="go"):
    return Begin(epoch=epoch, instruction=instruction, seed=3, max_steps=64)


def remember(frame, epoch=1):
    return Remember(epoch=epoch, frame=frame, observations=())


def infer(frame, epoch=1, prefix=None):
    return Act(epoch=epoch, frame=frame, requested_at=0, state=np.zeros(14), prefix=prefix)


def drained(worker, most=200):
    """Turn until nothing is left; return what was told."""
    for _ in range(most):
        if worker.turn() is None:
            return worker.events()
    raise AssertionError("it never came to rest")


def epoch_of(event):
    """Of an event, or of the chunk that it is about."""
    return event.task.epoch if hasattr(event, "task") else event.epoch


def told(events):
    """Events in a word each."""
    words = []
    for event in events:
        match event:
            case FrameRemembered():
                words.append(f"frame {event.frame}")
            case ChunkMade() | ChunkLost() | ChunkReplaced():
                words.append(f"{type(event).__name__} {event.task.frame}")
            case _:
                words.append(f"{type(event).__name__} {event.epoch}")
    return words


class Ticking:
    """A clock that goes on by one with every look."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1_000_000
        return self.now


def test_one_episode_in_its_order():
    policy, heard = BenchPolicy(), []
    worker = Worker(
        policy,
        on_begin=lambda task: heard.append(f"begin {task.epoch}"),
        on_frame=lambda task, frame: heard.append(f"frame {task.frame} {frame}"),
        on_chunk=lambda task, chunk: heard.append(f"chunk {task.frame} {chunk.shape}"),
        now_ns=Ticking(),
    )
    for task in (begin(), remember(0), infer(0), Finish(epoch=1)):
        worker.put(task)
    events = drained(worker)
    assert told(events) == ["Begun 1", "frame 0", "ChunkMade 0", "Finished 1"]
    assert policy.log == ["reset go 3 64", "remember 0", "act 0", *["step 0"] * 4]
    assert heard == ["begin 1", "frame 0 0", "chunk 0 (32, 14)"]
    # 4 puts; begin looks once; the frame is begun at 6 (put at 2) and done at 7; the chunk 8 to 9.
    (taken,) = [event for event in events if isinstance(event, FrameRemembered)]
    (made,) = [event for event in events if isinstance(event, ChunkMade)]
    assert (taken.waited_ms, taken.took_ms, made.took_ms) == (4, 1, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["see", "remember", "infer", "turn", "turn", "turn"]), max_size=60),
    st.integers(1, 6),
)
def test_a_frame_waits_for_one_step_at_most(moves, num_steps):
    policy = BenchPolicy(num_steps=num_steps)
    worker = Worker(policy)
    for task in (begin(), remember(0)):
        worker.put(task)
    drained(worker)
    waiting: dict[int, int] = {}  # frame to denoising steps since it was put
    ahead: list[str] = []  # tasks, in their order
    number = 1
    for move in moves:
        if move == "remember":
            worker.put(remember(number))
            waiting[number], number = 0, number + 1
            ahead.append("remember")
        elif move == "see":
            worker.put(See(epoch=1, observation=None))  # type: ignore[arg-type]
            ahead.append("see")
        elif move == "infer":
            worker.put(infer(number - 1))
            ahead.append("prepare")
        else:
            unit = worker.turn()
            if ahead:
                assert unit == ahead.pop(0), "tasks in their order, before any more steps"
                if unit == "remember":
                    assert waiting.pop(min(waiting)) <= 1
            elif unit == "step":
                waiting = {frame: steps + 1 for frame, steps in waiting.items()}
                assert not waiting
    drained(worker)
    assert [f"remember {k}" for k in range(number)] == [
        line for line in policy.log if line.startswith("remember")
    ]
    # A chunk acts on what was remembered when it was asked for, and on nothing later.
    asked = [line for line in policy.log if line.startswith("act")]
    assert len(asked) == moves.count("infer")


def test_a_chunk_asked_for_in_the_middle_of_another_takes_its_place():
    policy = BenchPolicy()
    worker = Worker(policy)
    for task in (begin(), remember(0), infer(0)):
        worker.put(task)
    while worker.turn() != "step":
        pass
    worker.put(remember(1))
    worker.put(infer(1))
    assert told(drained(worker)) == [
        "Begun 1", "frame 0", "frame 1", "ChunkReplaced 0", "ChunkMade 1",
    ]  # fmt: skip
    assert "given up 0" in policy.log
    assert policy.log.count("step 0") == 1
    assert policy.log.count("step 1") == 4


def test_finish_lets_the_chunk_under_way_end_and_is_told_last():
    policy = BenchPolicy()
    worker = Worker(policy)
    for task in (begin(), remember(0), infer(0), remember(1), Finish(epoch=1)):
        worker.put(task)
    assert told(drained(worker)) == [
        "Begun 1", "frame 0", "frame 1", "ChunkMade 0", "Finished 1",
    ]  # fmt: skip


def test_an_epoch_that_is_over_leaves_no_trace():
    policy, heard = BenchPolicy(), []
    worker = Worker(policy, on_chunk=lambda task, chunk: heard.append(task.epoch))
    for task in (begin(1), remember(0), infer(0)):
        worker.put(task)
    for _ in range(5):
        worker.turn()  # two steps into the chunk
    worker.events()
    for task in (remember(1, epoch=1), begin(2, "again"), remember(2, epoch=1), infer(0, epoch=1),
                 Finish(epoch=1), remember(0, epoch=2), infer(0, epoch=2)):  # fmt: skip
        worker.put(task)
    assert told(drained(worker)) == ["Begun 2", "frame 0", "ChunkMade 0"]
    after = policy.log[policy.log.index("given up 0") :]
    assert after == ["given up 0", "reset again 3 64", "remember 0", "act 0", *["step 0"] * 4]
    assert heard == [2]
    worker.put(begin(1, "of yesterday"))
    assert drained(worker) == []
    assert "reset of yesterday 3 64" not in policy.log


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "remember", "infer", "turn"]), st.integers(1, 3)),
        max_size=40,
    )
)
def test_events_are_of_the_newest_epoch_that_was_begun_when_they_were_made(moves):
    policy = BenchPolicy(num_steps=2)
    worker = Worker(policy)
    newest = 0
    begun = False
    for kind, epoch in moves:
        if kind == "turn":
            worker.turn()
        elif kind == "begin":
            worker.put(begin(epoch))
            if epoch >= newest:
                newest, begun = epoch, True
            worker.turn()
            worker.events()  # what was made before it was given
        elif begun:
            worker.put(remember(0, epoch) if kind == "remember" else infer(0, epoch))
        for event in worker.events():
            assert epoch_of(event) >= newest
    assert all(epoch_of(event) >= newest for event in drained(worker))


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("remember", MemorywamError("no room"), "no room"),
        ("begin_act", DeviceError("gone"), "gone"),
        ("step", ZeroDivisionError("by 0"), "ZeroDivisionError: by 0"),
        ("reset", MemorywamError("no such instruction"), "no such instruction"),
    ],
)
def test_a_failure_ends_its_epoch_and_is_told_once(what, error, words):
    policy = BenchPolicy()
    policy.failing[what] = deque([error])
    worker = Worker(policy)
    for task in (begin(), remember(0), infer(0), remember(1), infer(1), Finish(epoch=1)):
        worker.put(task)
    events = drained(worker)
    failed = [event for event in events if isinstance(event, Failed)]
    assert [(event.epoch, event.reason) for event in failed] == [(1, words)]
    assert events[-1] is failed[0], "nothing more of its epoch"
    for task in (remember(2), Finish(epoch=1)):
        worker.put(task)
    assert drained(worker) == []
    # The next episode, even of the same number: whoever makes a new grid counts from 1 again.
    for task in (begin(1), remember(0), Finish(epoch=1)):
        worker.put(task)
    assert told(drained(worker)) == ["Begun 1", "frame 0", "Finished 1"]


def test_listeners_that_fail_end_the_epoch_too():
    def fail(task, frame):
        raise OSError("disk full")

    worker = Worker(BenchPolicy(), on_frame=fail)
    for task in (begin(), remember(0), remember(1)):
        worker.put(task)
    assert told(drained(worker)) == ["Begun 1", "Failed 1"]


def test_a_chunk_that_is_not_finite_is_lost_and_the_worker_goes_on():
    policy = BenchPolicy()
    policy.failing["chunk"] = deque([NAN_CHUNK])
    heard: list[int] = []
    worker = Worker(policy, on_chunk=lambda task, chunk: heard.append(task.frame))
    for task in (begin(), remember(0), infer(0)):
        worker.put(task)
    events = drained(worker)
    assert told(events) == ["Begun 1", "frame 0", "ChunkLost 0"]
    assert isinstance(events[-1], ChunkLost)
    assert "not finite" in events[-1].reason
    for task in (remember(1), infer(1)):
        worker.put(task)
    assert told(drained(worker)) == ["frame 1", "ChunkMade 1"]
    assert heard == [1]


def test_a_chunk_that_memory_gave_up_is_lost():
    policy = BenchPolicy()
    worker = Worker(policy)
    for task in (begin(), remember(0), infer(0)):
        worker.put(task)
    while worker.turn() != "step":
        pass
    acting = worker._acting
    assert acting is not None
    acting[1].give_up()
    assert told(drained(worker)) == ["Begun 1", "frame 0", "ChunkLost 0"]


def test_prefix_and_noise_reach_the_policy():
    policy = BenchPolicy(lambda frame: at(7.0, 4))
    worker = Worker(policy)
    noise = np.ones((4, 14))
    worker.put(begin())
    worker.put(remember(0))
    worker.put(Act(epoch=1, frame=0, requested_at=0, state=np.zeros(14), prefix=at(2.0, 2),
                     noise=noise))  # fmt: skip
    (made,) = [event for event in drained(worker) if isinstance(event, ChunkMade)]
    assert made.chunk[:, 0].tolist() == [2, 2, 7, 7]
    assert policy.noise == [noise]


def test_the_thread_survives_what_its_policy_raises_and_ends_when_told():
    policy = BenchPolicy()
    policy.failing["remember"] = deque([RuntimeError("odd")])
    thread = WorkerThread(Worker(policy))
    events: list[Event] = []

    def wait_for(kind):
        deadline = time.monotonic() + 5
        while not any(isinstance(event, kind) for event in events):
            assert time.monotonic() < deadline
            events.extend(thread.events())
            time.sleep(0.001)

    try:
        for task in (begin(1), remember(0)):
            thread.put(task)
        wait_for(Failed)
        assert thread.is_alive
        for task in (begin(2), remember(0, epoch=2), infer(0, epoch=2), Finish(epoch=2)):
            thread.put(task)
        wait_for(Finished)
    finally:
        assert thread.close(1.0)
    assert told(events) == [
        "Begun 1", "Failed 1", "Begun 2", "frame 0", "ChunkMade 0", "Finished 2",
    ]  # fmt: skip
    assert [event.epoch for event in events if isinstance(event, Begun)] == [1, 2]
