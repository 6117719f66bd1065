"""Simulated time: the same every time, and memory as if nothing had happened at once."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.fakes.live import CAMERAS, MS, TICK_MS, calm_bundle, shipped_bundle
from tests.fakes.live_bench import Bench

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import load_from_measured
from memorywam_robot.live.tasks import Act, Remember
from memorywam_robot.live.virtual_worker import Latency, VirtualWorker
from memorywam_robot.live.worker import Worker
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy

pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

ANYTHING = LimitRules(seam_warned_rad=1e6, seam_refused_rad=1e6)
"""An untrained model's chunks join nowhere."""


# --- R16: memory does not know of time


@pytest.fixture(scope="module")
def tiny(tiny_bundle):
    return Policy(opened(tiny_bundle, Opening(num_threads=1)))


def watched(policy, latency, num_steps=80, frames_per_chunk=0):
    """An episode whose images do not depend on the arms; what was done, and digests."""
    done: list[Any] = []

    def on_frame(task, frame):
        is_within = rig.worker._acting is not None
        done.append(("frame", task, memory_digest(policy.session), is_within))

    def on_chunk(task, chunk):
        done.append(("chunk", task, chunk.tobytes(), False))

    rig = Bench(
        policy=policy, contract=policy.contract, latency=latency, act_ms=100.0, opens=False,
        cameras_run=False, num_steps=num_steps, limit_rules=ANYTHING, instruction="random",
        rules=LiveRules(starved_ms=60_000), frames_per_chunk=frames_per_chunk,
        hooks={"on_frame": on_frame, "on_chunk": on_chunk},
    )  # fmt: skip
    while rig.episode.phase != "ended":
        since = (rig.now_ns + TICK_MS * MS - rig.begun[0]) // MS if rig.begun else -1
        for camera in rig.cameras:
            seen = np.random.default_rng((since + 1, CAMERAS.index(camera.name)))
            camera.give(rig.now_ns + TICK_MS * MS, image=seen.integers(0, 256, (8, 6, 3), np.uint8))
        rig.tick()
    rig.finish()
    return rig, done


LATENCIES = {
    "none": Latency(remember_ms=0.0, step_ms=0.0),
    "as planned": Latency(remember_ms=30.0, step_ms=25.0),
    "updates within chunks": Latency(remember_ms=130.0, step_ms=600.0),
    "late, and out of step": Latency(remember_ms=777.0, step_ms=211.0),
}


@pytest.mark.parametrize("frames_per_chunk", [1, 2])
@pytest.mark.parametrize("name", LATENCIES)
def test_memory_is_what_one_thing_after_the_other_makes_it(tiny, name, frames_per_chunk):
    rig, done = watched(tiny, LATENCIES[name], frames_per_chunk=frames_per_chunk)
    assert rig.episode.aborted == ""
    assert len(rig.remembered) == 5
    last = memory_digest(tiny.session)
    if name == "updates within chunks":
        assert any(is_within for *_, is_within in done), "or nothing was tried"
        if frames_per_chunk == 2:  # or else the next one takes its place
            order = [(what, task.frame) for what, task, *_ in done]
            assert order.index(("frame", 1)) < order.index(("chunk", 0))
    frames = [one for one in done if one[0] == "frame"]
    chunks = {one[1].frame: one for one in done if one[0] == "chunk"}
    assert [one[1].frame for one in frames] == [0, 1, 2, 3, 4]
    # The same again, one after the other.
    tiny.reset("random", seed=rig.episode.start.seed)
    asked = {task.frame: task for task in rig.asked}
    for _, task, digest, _ in frames:
        tiny.remember(task.observations, task.executed)
        assert memory_digest(tiny.session) == digest, f"after frame {task.frame}"
        if task.frame in asked:
            again = asked[task.frame]
            acting = tiny.begin_act(again.state, again.noise, prefix=again.prefix)
            while not acting.advance():
                pass
            if task.frame in chunks:
                assert acting.chunk().tobytes() == chunks[task.frame][2]
    assert memory_digest(tiny.session) == last


def test_the_same_images_make_the_same_memory_whatever_the_latency(tiny):
    found = set()
    for latency in LATENCIES.values():
        rig, _ = watched(tiny, latency, num_steps=40)
        tiny.reset("random")
        for task in rig.remembered:
            tiny.remember(task.observations)
        found.add(memory_digest(tiny.session))
    assert len(found) == 1


# --- the worker of simulated time


def test_work_is_told_when_it_would_be_done():
    from tests.fakes.live import BenchPolicy

    from memorywam_robot.live.tasks import Begin, ChunkMade, FrameRemembered

    policy = BenchPolicy(num_steps=3)
    virtual = VirtualWorker(
        Worker(policy, now_ns=lambda: 0), Latency(remember_ms=50.0, step_ms=30.0)
    )
    told: list[tuple[int, str]] = []
    took_ms: list[float] = []

    def advance(until_ms):
        virtual.advance(until_ms * MS)
        for event in virtual.events():
            told.append((until_ms, type(event).__name__))
            if isinstance(event, FrameRemembered | ChunkMade):
                took_ms.append(event.took_ms)

    advance(100)
    virtual.put(Begin(epoch=1, instruction="go", seed=0, max_steps=9))
    virtual.put(Remember(epoch=1, frame=0, observations=()))
    virtual.put(Act(epoch=1, frame=0, requested_at=0, state=np.zeros(14)))
    for now in range(101, 220):
        advance(now)
        if now == 170:  # in the first step of the chunk, which lasts until 180
            virtual.put(Remember(epoch=1, frame=1, observations=()))
    advance(400)
    assert told == [
        (101, "Begun"), (150, "FrameRemembered"), (400, "FrameRemembered"),
        (400, "ChunkMade"),
    ]  # fmt: skip
    assert took_ms == [50.0, 50.0, 140.0], "a frame came between its three steps"
    assert policy.log == [
        "reset go 0 9", "remember 0", "act 0", "step 0", "remember 1", "step 0", "step 0",
    ]  # fmt: skip


# --- episodes of the simulator


@pytest.fixture(scope="module")
def calm(tiny_bundle, tmp_path_factory):
    return calm_bundle(tiny_bundle, tmp_path_factory.mktemp("calm"))


@pytest.fixture(scope="module")
def policy(calm):
    return Policy(opened(calm, Opening(num_threads=1)))


def run_of(policy, *, remember_ms=30.0, act_ms=120.0, latency=None, frames=1, **words):
    from memorywam_robot.live.virtual_run import VirtualRun, latency_from_load

    load = load_from_measured(policy.contract, remember_ms=remember_ms, act_ms=act_ms)
    load = replace(load, num_executed=16 * frames)
    if latency is None:
        latency = latency_from_load(load, policy.num_denoising_steps)
    return VirtualRun(policy, policy.contract, "recall", load=load, latency=latency, **words)


SEED, NUM_STEPS, TEXT = 3, 52, "random"


@pytest.fixture(scope="module")
def first(policy):
    """One episode, and the digest of its memory."""
    run = run_of(policy)
    try:
        result = run.episode(SEED, num_steps=NUM_STEPS, instruction=TEXT)
    finally:
        run.close()
    return result, memory_digest(policy.session)


def test_an_episode_counts_what_it_should(first):
    result, _ = first
    assert result.aborted == ""
    assert result.executed.shape == (NUM_STEPS, 14)
    counts = result.counts
    assert (counts.frames, counts.chunks, counts.holds, counts.skipped) == (4, 4, 0, 0)
    assert counts.grid.memory_quality == 1.0
    assert (counts.remember_ms, counts.act_ms) == ([30.0] * 4, [120.0] * 4), "as is told"
    assert (counts.delayed_last, counts.delayed_most) == (2, 2)
    assert [row["num_steps"] for row in counts.misses.report()] == [2] * 4
    assert (result.kept_hz, result.worst_tick_ms) == (None, None), "nobody waits for a tick"
    # 150 ms and the margin: 2 steps of each chunk are bridged, and made up for.
    assert counts.bridged == 8
    assert [(seam.step, seam.num_consumed) for seam in counts.seams] == [
        (16 * k + 2, 2) for k in range(4)
    ]
    assert max(seam.position for seam in counts.seams) < 0.2
    report = result.report()
    assert report["seams"][1]["position"] == counts.seams[1].position
    assert result.plain().num_frames == 4


def test_the_same_seed_is_the_same_episode_bit_for_bit(first, policy):
    result, digest = first
    run = run_of(policy)
    try:
        other = run.episode(
            SEED + 1, num_steps=20, instruction=TEXT
        )  # what was before does not matter
        again = run.episode(SEED, num_steps=NUM_STEPS, instruction=TEXT)
    finally:
        run.close()
    assert again.executed.tobytes() == result.executed.tobytes()
    assert memory_digest(policy.session) == digest
    assert other.executed.tobytes() != result.executed[:20].tobytes()
    assert again.counts.seams == result.counts.seams


def test_images_through_librealsense_make_the_same_memory(first, policy):
    pytest.importorskip("pyrealsense2", reason="needs the extra memorywam[realsense]")
    from memorywam_robot.cameras.camera_arguments import CameraSpec

    result, digest = first
    carriers = [CameraSpec(name=name, kind="realsense-sim") for name in CAMERAS]
    run = run_of(policy, carriers=carriers)
    try:
        carried = run.episode(SEED, num_steps=NUM_STEPS, instruction=TEXT)
    finally:
        run.close()
    assert carried.executed.tobytes() == result.executed.tobytes()
    assert memory_digest(policy.session) == digest


def test_faults_without_carriers_and_cameras_of_other_kinds_are_refused(policy):
    from memorywam_robot.cameras.camera_arguments import CameraSpec
    from memorywam_robot.cameras.frame_faults import Drop, FaultSchedule

    with pytest.raises(InputError, match="expected --cameras NAME=realsense-sim"):
        run_of(policy, faults=FaultSchedule(faults=(Drop(at=3),)))
    with pytest.raises(InputError, match=r"head=source; expected NAME=realsense-sim"):
        run_of(policy, carriers=[CameraSpec(name="head", kind="source")])


@pytest.mark.parametrize(
    "name",
    ["plain", "dropped and filled", "updates within chunks"],
)
def test_a_recording_replays_bit_for_bit(policy, calm, tmp_path, name):
    from memorywam_robot.live.live_recorder import LiveRecorder
    from memorywam_robot.recorder import Recorder
    from memorywam_robot.replay import replay_exactly
    from memorywam_runtime.recording import Acted, Remembered, open_recording

    words: dict[str, Any] = {}
    num_steps = 36
    if name == "dropped and filled":
        words["drops"] = lambda camera, number, since_ns: 2350 * MS < since_ns < 2650 * MS
    if name == "updates within chunks":
        words["latency"] = Latency(remember_ms=100.0, step_ms=600.0)
        words |= {"rules": LiveRules(starved_ms=5000), "frames": 2}
        num_steps = 52
    with Recorder(
        tmp_path, policy, robot="sim:recall", num_threads=1, records_memory=True, loop="async"
    ) as recorder:
        run = run_of(policy, tellers=[LiveRecorder(recorder)], **words)
        try:
            result = run.episode(SEED, num_steps=num_steps, instruction=TEXT)
        finally:
            run.close()
        (written,) = recorder.written
    assert written.complaint == ""
    assert result.aborted == ""
    if name == "dropped and filled":
        assert result.counts.grid.filled == 1
        assert result.counts.holds == 0
    recording = open_recording(written.path)
    if name == "updates within chunks":
        made = [event for event in recording.events() if isinstance(event, Acted | Remembered)]
        newest = [event.frame for event in made if isinstance(event, Remembered)]
        assert any(
            isinstance(event, Acted)
            and any(isinstance(one, Remembered) and one.frame > event.frame for one in made[:k])
            for k, event in enumerate(made)
        ), "or nothing was tried"
        assert newest == sorted(newest)
    assert recording.ending is not None
    assert recording.ending.num_frames == result.counts.frames
    other = Policy(opened(calm, Opening(num_threads=1)))
    replayed = replay_exactly(other, recording)
    assert replayed.is_equal
    assert len(replayed.chunks) >= 1
    assert replayed.num_digests == result.counts.frames + 1
    # And it would tell: another seed gives other chunks.
    assert not replay_exactly(other, recording, seed=SEED + 1).is_equal
    assert not any(one.is_equal for one in replay_exactly(other, recording, seed=99).chunks)


@pytest.mark.proof
@pytest.mark.parametrize("seam", ["inpaint", "blend", "drop"])
def test_seams_of_every_kind_in_whole_episodes(tmp_path_factory, seam):
    trained = Policy(opened(shipped_bundle(tmp_path_factory), Opening(num_threads=1)))
    run = run_of(trained, rules=LiveRules(seam=seam))
    try:
        results = [run.episode(seed) for seed in range(4)]
    finally:
        run.close()
    seams = [one for result in results for one in result.counts.seams]
    worst = max(one.position for one in seams), max(one.velocity for one in seams)
    assert all(result.aborted == "" for result in results), worst
    assert worst[0] < 0.2
    assert sum(bool(result.success) for result in results) >= 3, worst


@pytest.mark.parametrize("latency", [Latency(remember_ms=30.0, step_ms=12.0)])
def test_rules_and_latency_are_those_told(policy, latency):
    run = run_of(policy, latency=replace(latency, step_ms=80.0))
    try:
        result = run.episode(SEED, num_steps=20, instruction=TEXT)
    finally:
        run.close()
    # 20 (the first image) + 30 + 4 * 80 ms: the fourth step has begun when the first chunk arrives.
    assert result.counts.seams[0].num_consumed == 4
