"""Chunks late, lost or implausible, arms that do not follow, blind eyes: what is done."""

from collections import deque
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from tests.fakes.live import (
    MS,
    NAN_CHUNK,
    TICK_MS,
    BenchPolicy,
    small_contract,
)
from tests.fakes.live_bench import AMPLE, STEP_MS, bench, dark, ramp

from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.live.tasks import (
    ChunkMade,
    Finish,
)
from memorywam_runtime.errors import MemorywamError


def test_no_chunk_is_asked_for_while_memory_is_behind():
    policy = BenchPolicy(lambda f: ramp(f, 64))
    rig = bench(policy, contract=small_contract(64), num_steps=300, rules=AMPLE)
    assert rig.virtual is not None
    rig.virtual._latency = replace(rig.virtual._latency, remember_ms=5000.0)
    rig.until(lambda: rig.episode.phase == "ended")
    counts = rig.episode.counts
    assert "groups wait for memory" in rig.episode.aborted
    assert counts.chunks_not_asked >= 1
    assert [task.frame for task in rig.asked] == [0]
    assert [task.frame for task in rig.remembered] == list(range(len(rig.remembered)))


def test_a_hold_clears_the_queue_and_the_next_frame_asks_again():
    rig = bench(num_steps=96)
    dark(rig, 3300, 4290)
    assert rig.episode.counts.holds == 1
    assert rig.queue.num_left == 0, "while held the arms stand"
    held_at = rig.queue.last.copy()
    while rig.since_ms < 4790:
        rig.tick()
        assert np.allclose(rig.body.commands[-1][1], held_at), "and go on to stand"
    asked = len(rig.asked)
    rig.run()
    counts = rig.episode.counts
    assert rig.episode.aborted == ""
    assert [task.frame for task in rig.asked] == [0, 1, 2, 3, 4, 5]
    assert asked <= 4
    assert counts.held_ms > 0
    assert counts.chunks == 6
    assert counts.grid.filled > 0
    assert len(rig.episode.executed) == 96
    assert any(reason.startswith("hold: ") for reason in counts.reasons)
    assert np.abs(np.diff(np.array(rig.episode.executed)[:, 0])).max() < 0.02, "no jump"


def test_a_chunk_that_comes_in_a_hold_is_dropped():
    rig = bench(num_steps=96)
    dark(rig, 3300, 4290)
    assert rig.episode.counts.holds == 1
    before = rig.episode.counts.chunks
    rig.hand.telling = [ChunkMade(task=rig.asked[-1], chunk=ramp(2), took_ms=1.0)]
    rig.tick(images=False)
    assert (rig.episode.counts.chunks, rig.episode.counts.chunks_dropped) == (before, 1)
    assert rig.queue.num_left == 0


def test_a_chunk_that_comes_after_the_end_counts_for_nothing():
    rig = bench(num_steps=96)
    rig.until(lambda: len(rig.asked) == 2)
    counts = rig.episode.counts
    rig.episode.abort("enough")
    rig.finish()
    assert rig.policy.log.count("step 1") == 4, "it was brought to its end"
    assert (counts.chunks, counts.chunks_dropped, len(counts.act_ms)) == (1, 0, 1)


@pytest.mark.parametrize("horizon", [16, 32])
def test_images_that_come_late_meet_the_state_and_the_steps_of_their_time(horizon):
    contract = small_contract(horizon, action_history=horizon == 16)
    rig = bench(BenchPolicy(lambda f: ramp(f, horizon)), contract=contract, num_steps=64,
                act_ms=60.0, remember_ms=20.0, cameras_run=False, opens=False)  # fmt: skip
    states = {}
    for _ in range(30):
        for camera in rig.cameras:
            camera.give(rig.now_ns)
        if rig.episode.phase == "gate":
            rig.tick()
    while rig.episode.phase == "running":
        states[rig.now_ns + TICK_MS * MS] = rig.body.position.copy()
        for camera in rig.cameras:
            camera.give(rig.now_ns - 120 * MS)  # 140 ms old when it is looked at
        rig.tick()
    rig.finish()
    assert rig.episode.aborted == ""
    executed = np.array(rig.episode.executed)
    assert len(rig.asked) == 4
    for infer, group in zip(rig.asked[1:], rig.remembered[1:], strict=True):
        slot_ns = rig.begun[0] + 16 * infer.frame * STEP_MS * MS
        assert np.allclose(infer.state, states[slot_ns])
        assert infer.requested_at == 16 * infer.frame
        if horizon == 16:
            assert group.executed is not None
            rows = executed[16 * group.frame - 16 : 16 * group.frame]
            assert group.executed.tobytes() == rows.tobytes()


def test_no_image_stands_for_a_time_that_is_still_to_come():
    tiny = small_contract(32)
    views = msgspec.structs.replace(tiny.observations, steps_per_image=2)  # 200 ms
    captured: list[tuple[int, int]] = []

    class Ear:
        def on_observation(self, observation, captured_ns):
            captured.append((observation.step, captured_ns))

        def on_step(self, step, action, state):
            pass

    rig = bench(contract=msgspec.structs.replace(tiny, observations=views), num_steps=40,
                listeners=[Ear()])  # fmt: skip
    dark(rig, 2180, 2309)  # slot 11 lacks all that is nearest to it; the next image is early
    rig.run()
    assert rig.episode.aborted == ""
    assert rig.episode.counts.grid.filled == 1
    lags = [(ns - rig.begun[0]) // MS - step * STEP_MS for step, ns in captured]
    assert sum(lag < 0 for lag in lags) == 1, "the one that was filled"
    assert max(lags) <= TICK_MS


def test_a_chunk_is_judged_where_it_takes_over():
    """Arms that move fast are far from its beginning by then: that is no jump."""
    for seam in ("inpaint", "blend", "drop"):
        policy = BenchPolicy(lambda f: 30 * ramp(f))
        rig = bench(policy, num_steps=70, rules=LiveRules(seam=seam))
        rig.run()
        assert rig.episode.aborted == ""
        assert rig.episode.counts.chunks == 5
        if seam == "inpaint":
            assert rig.episode.counts.chunks_warned <= 2, "of those that make up for standing"


def test_a_hold_that_lasts_stops_the_arms():
    rig = bench(num_steps=96)
    dark(rig, 3300, 9000)
    assert rig.episode.phase == "ended"
    assert "no frames for 500 ms of hold" in rig.episode.aborted
    assert rig.episode.counts.held_ms == pytest.approx(500, abs=TICK_MS + 1)
    rig.finish()
    assert isinstance(rig.tasks[-1], Finish)


def test_a_camera_that_shows_nothing_holds_the_arms_and_then_stops_them():
    rig = bench(num_steps=96)
    while rig.since_ms < 2420:
        rig.tick()

    def one_is_black(until_ms):
        while rig.since_ms < until_ms and rig.episode.phase == "running":
            rig.tick(images=False)
            for camera in rig.cameras:
                camera.give(rig.now_ns, doubt="black" * (camera.name == "head"))

    one_is_black(2560)
    assert rig.episode.counts.holds == 0
    one_is_black(2720)
    assert rig.episode.counts.holds == 1
    assert rig.episode.counts.reasons[0].startswith("hold: camera head shows nothing: black")
    stood = rig.queue.last.copy()
    one_is_black(2820)
    assert rig.queue.last.tobytes() == stood.tobytes()
    assert np.allclose(rig.body.commands[-1][1], stood)
    for _ in range(30):
        rig.tick()
    assert rig.episode.phase == "running", rig.episode.aborted
    assert rig.queue.last[0] > stood[0], "and on"
    begun_ms = rig.since_ms
    one_is_black(9000)
    assert rig.episode.aborted == "camera head shows nothing: black"
    assert rig.since_ms - begun_ms == pytest.approx(500, abs=2 * TICK_MS)
    rig.finish()
    assert isinstance(rig.tasks[-1], Finish)


def test_starvation_is_an_abort_within_its_time():
    rig = bench(num_steps=96)
    rig.until(lambda: len(rig.asked) == 2)
    policy = rig.policy
    assert policy is not None
    policy.num_steps = 10**6  # this chunk will never be
    # 16 actions are left of the first one; 500 ms more, and the step under way.
    rig.until(lambda: rig.episode.phase == "ended")
    assert rig.episode.aborted == "starved: no chunk for 700 ms"
    assert rig.since_ms == pytest.approx(3200 + 600, abs=2 * TICK_MS)


def test_the_first_chunk_has_a_longer_time():
    policy = BenchPolicy(ramp)
    rig = bench(policy, num_steps=400, grid_rules=GridRules(max_waiting=99), opens=False)
    policy.num_steps = 10**6
    rig.until(lambda: rig.episode.phase == "ended")
    assert rig.episode.aborted.startswith("starved: no chunk for 10100 ms")


def test_an_implausible_chunk_is_dropped_and_the_second_in_a_row_stops():
    jumps = iter((0, 0.5, 0, 0.5, 0.5))  # of frame 0, of 1 twice, of 2 twice
    policy = BenchPolicy(lambda f: ramp(f) + next(jumps))
    rig = bench(policy, num_steps=160, rules=LiveRules(seam="drop"))
    rig.run()
    counts = rig.episode.counts
    assert "2 chunks in a row dropped" in rig.episode.aborted
    assert (counts.chunks, counts.chunks_dropped) == (2, 3)
    assert [reason.split(":")[0] for reason in counts.reasons] == ["drop", "drop", "stop"]
    sent = np.array([action[0] for _, action, _ in rig.body.commands])
    assert sent.max() < 0.1, "none of it was executed"
    assert np.abs(np.diff(sent)).max() < 0.01


def test_what_is_asked_for_again_is_asked_for_the_same_moment():
    policy = BenchPolicy(ramp)
    policy.failing["chunk"] = deque([None, NAN_CHUNK])
    rig = bench(policy, num_steps=64)
    rig.run()
    first, again = rig.asked[1], rig.asked[2]
    assert [task.frame for task in rig.asked] == [0, 1, 1, 2, 3]
    assert (first.attempt, again.attempt) == (0, 1)
    assert again.requested_at == first.requested_at
    assert again.state.tobytes() == first.state.tobytes(), "memory is of that moment, too"
    assert again.noise is not None
    assert again.noise.tobytes() == noise_of_frame(rig.contract, 5, 1, 1).tobytes()
    assert first.noise is not None
    assert again.noise.tobytes() != first.noise.tobytes()
    assert rig.episode.aborted == ""
    executed = np.array(rig.episode.executed)[:, 0]
    assert np.abs(np.diff(executed)).max() < 0.01


def test_a_chunk_with_a_jump_worth_a_word_is_counted():
    policy = BenchPolicy(lambda f: ramp(f) + 0.05 * (f == 2))
    rig = bench(policy, num_steps=80, rules=LiveRules(seam="drop"))
    rig.run()
    assert rig.episode.counts.chunks_warned == 2, "there and back"
    assert rig.episode.aborted == ""


def test_a_lost_chunk_is_told_and_the_old_one_goes_on():
    policy = BenchPolicy(lambda f: ramp(f, 34))
    policy.failing["chunk"] = deque([None, NAN_CHUNK])
    rig = bench(policy, contract=small_contract(34), num_steps=80)
    rig.run()
    counts = rig.episode.counts
    assert (counts.chunks_lost, counts.chunks_dropped, counts.chunks) == (1, 0, 5)


def test_a_chunk_too_late_for_any_action_is_dropped_and_nothing_is_played_again():
    rig = bench(num_steps=300, rules=AMPLE, grid_rules=GridRules(max_waiting=99))
    rig.until(lambda: len(rig.asked) == 2)
    stale = rig.asked[0]
    rig.until(lambda: rig.queue.num_taken >= 40)
    before = rig.episode.counts.chunks
    rig.hand.telling = [ChunkMade(task=stale, chunk=ramp(0), took_ms=1.0)]
    rig.tick()
    assert rig.episode.counts.chunks == before
    assert rig.episode.counts.chunks_dropped == 1
    rig.run()
    executed = np.array(rig.episode.executed)[:, 0]
    assert (np.diff(executed) >= -1e-9).all(), "the arms never step back"


@pytest.mark.parametrize("mode", ["stopped", "holding", "fault", "starting"])
def test_arms_that_do_not_follow_end_the_episode(mode):
    rig = bench()
    rig.tick(10)
    rig.body.mode, rig.body.reason = mode, "joint 3 is hot"
    assert not rig.tick()
    assert rig.episode.aborted == f"the arms are {mode}: joint 3 is hot"
    rig.finish()


def test_arms_that_brake_for_a_moment_may_go_on():
    rig = bench()
    rig.body.mode = "braking"
    assert rig.tick(5)


def test_limits_in_ten_chunks_in_a_row_stop():
    policy = BenchPolicy(ramp)
    rig = bench(policy, num_steps=16 * 14)
    while rig.tick():
        rig.body.num_limited += 1
    assert "limits changed 10 chunks in a row" in rig.episode.aborted
    assert rig.episode.counts.limited == rig.body.num_limited


@pytest.mark.parametrize("what", ["remember", "begin_act", "step"])
def test_a_policy_that_fails_ends_the_episode_once(what):
    policy = BenchPolicy(ramp)
    policy.failing[what] = deque([None, MemorywamError("no more")])
    rig = bench(policy)
    rig.run()
    assert rig.episode.aborted == "the policy failed: no more"
    assert len(rig.body.stops) == 1
    assert rig.episode.counts.reasons == ["stop: the policy failed: no more"]


def test_frames_in_doubt_are_kept_from_memory_and_counted():
    rig = bench(num_steps=40)
    rig.tick(2)
    while rig.since_ms < 440:
        rig.tick(images=False)
        for camera in rig.cameras:
            camera.give(rig.now_ns, image=np.full((2, 2, 3), 77, np.uint8), doubt="covered",
                        num_dropped=2)  # fmt: skip
    rig.run()
    assert rig.episode.counts.doubtful > 0
    assert rig.episode.counts.camera_dropped > 0
    shown = {int(o.images["head"].max()) for task in rig.remembered for o in task.observations}
    assert shown == {0}
