"""One episode that keeps time: its gate, its order, and what the arms are told."""

from dataclasses import replace

import numpy as np
import pytest
from tests.fakes.live import (
    MS,
    NUM_JOINTS,
    SENT_OFF,
    TICK_MS,
    BenchPolicy,
    small_contract,
)
from tests.fakes.live_bench import AMPLE, STEP_MS, Bench, bench, kinds, ramp

from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.live.tasks import (
    Begin,
    Begun,
    ChunkMade,
    Failed,
    Finish,
    Finished,
    FrameRemembered,
)

# --- the start gate


def test_the_gate_waits_for_memory_then_cameras_then_arms():
    rig = Bench(cameras_run=False)  # nothing answers
    seen: list[str] = []

    def look():
        rig.tick()
        if not seen or seen[-1] != rig.episode.obstacle:
            seen.append(rig.episode.obstacle)

    for _ in range(5):
        look()
    rig.hand.telling = [Begun(epoch=9)]
    look()
    assert seen == ["memory is not ready"], "of another epoch"
    rig.hand.telling = [Begun(epoch=1)]
    look()
    rig.cameras_run = True
    rig.cameras[1].state = "late"
    look()
    rig.cameras[1].state = "ok"
    rig.body.position += 0.3
    rig.body.command = lambda *words, **more: None  # type: ignore[method-assign]
    for _ in range(20):
        look()
    assert seen == [
        "memory is not ready",
        "camera left_wrist is without a frame",
        "camera right_wrist is late: no frame",
        "the arms do not stand still",
        "",
    ]
    assert rig.episode.phase == "running"
    assert len(rig.begun) == 1
    assert kinds(rig.tasks) == ["Begin", "Remember", "Act"]
    (begin,) = rig.of(Begin)
    assert (begin.seed, begin.max_steps, begin.instruction) == (5, 96, "go")


def test_a_gate_that_stays_shut_is_given_up_and_says_why():
    rig = Bench(rules=LiveRules(gate_timeout_s=1.0), cameras_run=False)
    while rig.tick():
        assert rig.now_ns < 3 * 10**9
    assert rig.episode.aborted == "the start gate stayed shut: memory is not ready"
    assert rig.now_ns - 10**9 == 1020 * MS
    assert kinds(rig.tasks) == ["Begin", "Finish"]
    assert rig.body.stops == [rig.episode.aborted]
    assert len(rig.body.commands) == 50, "a heartbeat at every tick but that of the end"
    assert rig.begun == []


def test_frames_from_before_the_gate_never_reach_memory():
    rig = Bench(cameras_run=False)
    for camera in rig.cameras:
        camera.give(rig.now_ns, image=np.full((2, 2, 3), 66, np.uint8))
    rig.hand.telling = [Begun(epoch=1)]
    while rig.episode.phase == "gate":
        rig.tick(images=True)
    rig.tick(images=True)
    (first,) = rig.remembered
    assert [o.step for o in first.observations] == [0]
    assert first.observations[0].images["head"].max() == 0


# --- a whole episode


def test_an_episode_from_begin_to_finish():
    rig = bench(num_steps=64)
    rig.run()
    counts = rig.episode.counts
    assert rig.episode.aborted == ""
    assert [task.frame for task in rig.remembered] == [0, 1, 2, 3]
    assert [o.step for task in rig.remembered for o in task.observations] == list(range(0, 64, 4))[
        :1
    ] + list(range(4, 52, 4))
    assert [task.frame for task in rig.asked] == [0, 1, 2, 3]
    assert [task.requested_at for task in rig.asked] == [0, 16, 32, 48]
    assert kinds(rig.tasks)[-1] == "Finish"
    assert (counts.frames, counts.chunks, counts.bridged, counts.skipped) == (4, 4, 3, 0)
    assert counts.chunks_dropped == counts.chunks_lost == counts.chunks_not_asked == 0
    assert len(rig.episode.executed) == 64
    assert rig.body.stops == ["the episode is over"]
    # The first chunk made up for three steps of standing; from the second on the path is kept.
    found = np.array(rig.episode.executed)[:, 0] - SENT_OFF
    assert found[32:].tolist() == pytest.approx((0.001 * np.arange(33, 65)).tolist())
    assert all(seam.num_consumed == 3 for seam in counts.seams)
    report = counts.report()
    assert report["frames"] == 4
    assert report["memory_quality"] == 1.0
    assert len(report["seams"]) == 4


def test_nothing_is_remembered_or_told_after_the_end():
    class Diary:
        def __init__(self):
            self.steps, self.observed = [], []

        def on_observation(self, observation, captured_ns):
            self.observed.append(observation.step)

        def on_step(self, step, action, state):
            self.steps.append(step)

    for num_steps in (16, 17, 30, 32, 48):
        diary = Diary()
        rig = bench(num_steps=num_steps, listeners=[diary])
        rig.run()
        assert diary.steps == list(range(1, num_steps + 1))
        assert isinstance(rig.tasks[-1], Finish)
        assert len(rig.of(Finish)) == 1
        assert all(step < num_steps for step in diary.observed)
        assert rig.policy is not None
        assert len(rig.policy.groups) == len(rig.remembered) == rig.episode.counts.frames
        assert not rig.tick()
        assert isinstance(rig.tasks[-1], Finish)


def test_executed_is_what_was_sent_and_that_is_told():
    told = []

    class Ear:
        def on_observation(self, observation, captured_ns):
            pass

        def on_step(self, step, action, state):
            told.append(action.copy())

    rig = bench(num_steps=40, listeners=[Ear()])
    rig.run()
    found = np.array(rig.episode.executed)
    assert found.tobytes() == np.array(told).tobytes()
    # At the end of step k the body was sent the action of that step, and SENT_OFF more.
    steps = {}
    for now_ns, action, _ in rig.body.commands:
        if rig.begun and now_ns >= rig.begun[0]:
            steps[int((now_ns - rig.begun[0]) // (STEP_MS * MS))] = action
    for step, action in enumerate(found):
        assert np.allclose(action, steps[step] + SENT_OFF, atol=1e-12)


def test_a_command_at_every_tick_and_never_after_the_end():
    rig = bench(num_steps=40)
    num_ticks = len(rig.body.commands)
    while rig.tick():
        num_ticks += 1
        assert len(rig.body.commands) == num_ticks
    assert len(rig.body.commands) == num_ticks
    rig.tick()
    rig.finish()
    assert len(rig.body.commands) == num_ticks
    assert all(np.isfinite(action).all() for _, action, _ in rig.body.commands)
    assert {ramp_ns for *_, ramp_ns in rig.body.commands} == {TICK_MS * MS}
    changes = np.diff([action[0] for _, action, _ in rig.body.commands])
    assert changes.max() <= 0.001 * 32 / 29 / 5 + 0.004 / 5 + 1e-9, "in a straight line"


def test_at_once_where_lines_are_not_wanted():
    rig = bench(rules=LiveRules(is_linear=False), num_steps=40)
    rig.run()
    sent = np.array([action[0] for _, action, _ in rig.body.commands])
    assert len(np.unique(sent.round(9))) <= 41
    assert np.count_nonzero(np.diff(sent)) <= 40


def test_noise_is_of_seed_and_frame_and_states_are_of_the_image():
    rig = bench(num_steps=40, seed=7)
    rig.run()
    for task in rig.asked:
        assert task.noise is not None
        assert task.noise.tobytes() == noise_of_frame(rig.contract, 7, task.frame).tobytes()
        (group,) = [one for one in rig.remembered if one.frame == task.frame]
        assert task.state.tobytes() == group.observations[-1].state.tobytes()
    # The body is where it was told to be a tick before: the state of each image's own moment.
    by_time = {now_ns + TICK_MS * MS: action for now_ns, action, _ in rig.body.commands}
    for group in rig.remembered[1:]:
        for observation in group.observations:
            captured_ns = rig.begun[0] + observation.step * STEP_MS * MS
            assert np.allclose(observation.state, by_time[captured_ns])


def test_seams_begin_with_what_is_executed_anyway():
    rig = bench(num_steps=64)
    rig.run()
    for task, made_up in zip(rig.asked[1:], (0.0, 0.0, 0.0), strict=True):
        assert task.prefix is not None
        assert task.prefix.shape == (rig.load.num_delayed, NUM_JOINTS)
        first = 0.001 * (task.requested_at + 1) + made_up
        assert task.prefix[0, 0] == pytest.approx(first, abs=0.004)
    assert rig.asked[0].prefix is None
    for seam in ("blend", "drop"):
        other = bench(num_steps=40, rules=LiveRules(seam=seam))
        other.run()
        assert all(task.prefix is None for task in other.asked)
        assert other.episode.counts.chunks == 3


def test_a_long_horizon_skips_frames_between_chunks():
    rig = bench(BenchPolicy(lambda f: ramp(f, 64)), contract=small_contract(64), num_steps=120)
    assert rig.load.num_executed == 48
    rig.run()
    assert [task.frame for task in rig.asked] == [0, 3, 6]
    assert [task.frame for task in rig.remembered] == list(range(8))


def test_frames_that_stand_alone_carry_their_steps():
    contract = small_contract(16, "tiny-fastwam")
    policy = BenchPolicy(lambda f: ramp(f, 16))
    rig = bench(policy, contract=contract, num_steps=64, act_ms=100.0)
    rig.run()
    assert [o.step for task in rig.remembered for o in task.observations] == [0, 16, 32, 48]
    assert len(rig.asked) == 4, "and none for what is seen last"
    assert rig.episode.aborted == ""


def test_executed_actions_go_to_memories_that_keep_them():
    contract = small_contract(16, action_history=True)
    rig = bench(BenchPolicy(lambda f: ramp(f, 16)), contract=contract, num_steps=64, act_ms=100.0)
    rig.run()
    executed = np.array(rig.episode.executed)
    assert rig.remembered[0].executed is None
    for task in rig.remembered[1:]:
        assert task.executed is not None
        rows = executed[16 * task.frame - 16 : 16 * task.frame]
        assert task.executed.tobytes() == rows.tobytes()


def test_history_stays_in_place_after_a_frame_that_came_early():
    """A slot given up lets a frame be complete before its time: the rows after it must not slip."""
    contract = small_contract(16, action_history=True)
    rig = bench(BenchPolicy(lambda f: ramp(f, 16)), contract=contract, num_steps=80,
                act_ms=100.0, rules=AMPLE, grid_rules=GridRules(max_filled_groups=9))  # fmt: skip
    while rig.episode.phase == "running":
        # Slot 11 (4.4 s) gets nothing; the next image is nearer to slot 12 (4.8 s), and early.
        rig.tick(images=not 4400 <= rig.since_ms + TICK_MS < 4610)
    rig.finish()
    executed = np.array(rig.episode.executed)
    early = rig.remembered[3].executed
    assert early is not None
    assert early.shape == (16, NUM_JOINTS)
    assert early[:12].tobytes() == executed[32:44].tobytes()
    late = rig.remembered[4].executed
    assert late is not None
    assert late.tobytes() == executed[48:64].tobytes()


def test_an_abort_from_outside_is_one_end():
    rig = bench()
    rig.tick(30)
    rig.episode.abort("interrupted")
    rig.episode.abort("interrupted again")
    assert not rig.tick()
    rig.finish()
    assert rig.episode.aborted == "interrupted"
    assert rig.body.stops == ["interrupted"]
    assert len(rig.of(Finish)) == 1


def test_nothing_of_another_epoch_counts():
    rig = bench(num_steps=96)
    rig.until(lambda: len(rig.asked) == 2)
    task = replace(rig.asked[-1], epoch=7)
    before = (rig.episode.counts.frames, rig.episode.counts.chunks, rig.queue.num_left)
    rig.hand.telling = [
        ChunkMade(task=task, chunk=ramp(0) + 5, took_ms=1.0),
        FrameRemembered(epoch=7, frame=99, took_ms=1.0, waited_ms=1.0),
        Failed(epoch=7, reason="of yesterday"),
        Finished(epoch=7),
    ]
    rig.tick(images=False)
    counts = rig.episode.counts
    assert (counts.frames, counts.chunks) == before[:2]
    assert rig.episode.phase == "running"
    assert not rig.episode.has_finished()
    assert counts.grid.old_results == 2
    rig.run()
    assert rig.episode.aborted == ""
    assert {task.epoch for task in rig.tasks} == {rig.of(Begin)[0].epoch}
