"""Every episode of a run has an epoch of its own: what an old one still tells is never taken."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.live import MS, TICK_MS, BenchPolicy, HandWorker, at
from tests.fakes.live_robot import NowRobot, run_of

from memorywam_robot.live.live_episode import LiveEpisode
from memorywam_robot.live.tasks import (
    Act,
    Begin,
    Begun,
    ChunkLost,
    ChunkMade,
    ChunkReplaced,
    Failed,
    Finished,
    FrameRemembered,
)
from memorywam_robot.loop import EpisodeStart

LATE = ("begun", "frame", "made", "lost", "replaced", "finished", "failed")


def late_event(kind, epoch):
    task = Act(epoch=epoch, frame=0, requested_at=0, state=np.zeros(14))
    return {
        "begun": Begun(epoch=epoch),
        "frame": FrameRemembered(epoch=epoch, frame=0, took_ms=1.0, waited_ms=1.0),
        "made": ChunkMade(task=task, chunk=at(0.0, 32), took_ms=1.0),
        "lost": ChunkLost(task=task, reason="of yesterday"),
        "replaced": ChunkReplaced(task=task),
        "finished": Finished(epoch=epoch),
        "failed": Failed(epoch=epoch, reason="of yesterday"),
    }[kind]


EPISODES = st.lists(
    st.lists(
        st.one_of(st.just(("instruct", 0)), st.tuples(st.sampled_from(LATE), st.integers(1, 9))),
        max_size=12,
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(EPISODES, st.booleans())
def test_nothing_that_an_old_episode_tells_late_is_taken(episodes, is_open):
    run = run_of(BenchPolicy(), NowRobot())
    run._thread.close()
    hand = run._thread = HandWorker()  # type: ignore[assignment]
    now_ns, last_epoch = 10**9, 0
    for moves in episodes:
        hand.tasks.clear()
        hand.telling = []
        parts = run._parts()
        parts.body.now_ns = now_ns  # type: ignore[attr-defined]
        episode = LiveEpisode(parts, EpisodeStart(seed=1, instruction="go", num_steps=96), now_ns)
        begins = hand.of(Begin)
        assert begins[0].epoch == parts.grid.epoch > last_epoch, "it rises from episode to episode"
        old = parts.grid.epoch - 1
        for kind, number in moves:
            if kind == "instruct":
                episode.set_instruction("another")
                continue
            # Of any epoch that is over by now, this episode's own earlier ones too.
            hand.telling = [late_event(kind, max(1, parts.grid.epoch - number))] if old else []
            before = (episode.phase, replace(episode.counts), parts.queue.num_left)
            now_ns += TICK_MS * MS
            assert episode.tick(now_ns)
            assert (episode.phase, replace(episode.counts), parts.queue.num_left) == before
            assert episode.obstacle == "memory is not ready"
            assert not episode.has_finished()
            assert episode.aborted == ""
        last_epoch = parts.grid.epoch
        epochs = [begin.epoch for begin in hand.of(Begin)]
        assert epochs == sorted(set(epochs))
        if is_open:  # and what is its own is taken
            hand.telling = [Begun(epoch=last_epoch)]
            now_ns += TICK_MS * MS
            episode.tick(now_ns)
            assert episode.obstacle != "memory is not ready"
