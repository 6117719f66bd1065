"""Images that are encoded as they come make the same memory as all of them with the last."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.live import CAMERAS, MS, TICK_MS, BenchPolicy
from tests.fakes.live_bench import Bench, kinds, ramp

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.tasks import Begin, Remember, See
from memorywam_robot.live.virtual_worker import Latency
from memorywam_runtime.digest import memory_digest
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy

ANYTHING = LimitRules(seam_warned_rad=1e6, seam_refused_rad=1e6)
"""An untrained model's chunks join nowhere."""
AMPLE = GridRules(max_filled_groups=9, max_outage_slots=9)


def rules(*, is_eager):
    return LiveRules(is_eager=is_eager, starved_ms=60_000, blind_stop_ms=60_000)


def run(rig, faults, instruct_at=()):
    """Go on to the end; a camera loses, doubles or delays what it is told to.

    Args:
        rig: Its cameras have an image every 60 ms, each another one.
        faults: Camera and image number to what becomes of it.
        instruct_at: Milliseconds after the gate to whether memory is kept.
    """
    waiting, changes = [], dict(instruct_at)
    number = 0
    while rig.episode.phase != "ended":
        number += 1
        now_ns = rig.now_ns + TICK_MS * MS
        for camera in rig.cameras if number % 3 == 1 else ():
            seed = (number // 3, CAMERAS.index(camera.name))
            image = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
            fault = faults.get((camera.name, number // 3), "") if rig.begun else ""
            due = {"": 0, "doubled": 0, "late": 5}.get(fault)
            if due is not None:
                item = (number + due, camera, now_ns, number // 3, image)
                waiting += [item] * (1 + (fault == "doubled"))
        for item in [item for item in waiting if item[0] <= number]:
            waiting.remove(item)
            item[1].give(item[2], number=item[3], image=item[4])
        rig.tick(images=False)
        if rig.begun and (due_ms := min(changes, default=1e9)) <= rig.since_ms:
            if not rig.episode.has_ended:
                rig.episode.set_instruction("random", keep_memory=changes.pop(due_ms))
            changes.pop(due_ms, None)
    rig.finish()


def remembered(rig):
    """All that memory was given, bit for bit."""
    return [
        (task.epoch, task.frame, [
            (one.step, one.state.tobytes(), {k: v.tobytes() for k, v in one.images.items()})
            for one in task.observations
        ])
        for task in rig.remembered
    ]  # fmt: skip


FAULTS = st.dictionaries(
    st.tuples(st.sampled_from(CAMERAS), st.integers(0, 140)),
    st.sampled_from(["lost", "doubled", "late"]),
    max_size=40,
)
BLIND = st.lists(st.integers(0, 140), max_size=3)


@settings(max_examples=60, deadline=None)
@given(
    FAULTS,
    BLIND,
    st.dictionaries(st.integers(500, 5000), st.booleans(), max_size=2),
    st.sampled_from([0.0, 40.0, 700.0]),
)
def test_a_frame_is_what_it_was_whatever_the_cameras_do(faults, blind, instruct_at, step_ms):
    for start in blind:  # nothing at all for a slot
        faults = faults | {
            (camera, number): "lost" for camera in CAMERAS for number in range(start, start + 7)
        }
    found = []
    for is_eager in (False, True):
        policy = BenchPolicy(ramp)
        rig = Bench(policy=policy, num_steps=60, cameras_run=False, opens=False, grid_rules=AMPLE,
                    rules=rules(is_eager=is_eager), limit_rules=ANYTHING,
                    latency=Latency(remember_ms=30.0, step_ms=step_ms))  # fmt: skip
        run(rig, faults, instruct_at)
        assert policy.seen == ()
        taken = [
            [(one.step, {k: v.tobytes() for k, v in one.images.items()}) for one in group]
            for group in policy.groups
        ]
        groups = [len(group) for group in policy.groups]
        assert groups == [1, *[4] * (len(groups) - 1)][: len(groups)]
        found.append(
            (remembered(rig), taken, np.array(rig.episode.executed).tobytes(), rig.episode.aborted)
        )
        assert bool(rig.of(See)) <= is_eager
    assert found[0] == found[1]


def test_each_image_but_the_last_is_given_as_it_comes():
    rig = Bench(policy=BenchPolicy(ramp), num_steps=40)
    rig.until(lambda: len(rig.remembered) == 1)
    assert kinds(rig.tasks) == ["Begin", "Remember", "Act"], "the first frame is one image"
    times: dict[int, float] = {}
    while len(rig.remembered) < 2:
        rig.tick()
        times.setdefault(len(rig.of(See)), rig.since_ms)
    assert [task.observation.step for task in rig.of(See)] == [4, 8, 12]
    assert [times[count] for count in (1, 2, 3)] == pytest.approx([400, 800, 1200], abs=TICK_MS)
    (second,) = [task for task in rig.remembered if task.frame == 1]
    assert second.num_seen == 3
    assert [one.step for one in second.observations] == [4, 8, 12, 16], "as they were told"
    assert rig.policy is not None
    assert rig.policy.log.count("see 1") == 3


def test_none_is_given_early_where_that_is_not_wanted():
    rig = Bench(policy=BenchPolicy(ramp), num_steps=40, rules=rules(is_eager=False))
    rig.run()
    assert rig.of(See) == []
    assert {task.num_seen for task in rig.of(Remember)} == {0}


def test_none_is_given_over_a_gap():
    """What comes after it could be needed twice: it is given with the frame."""
    rig = Bench(policy=BenchPolicy(ramp), num_steps=60, rules=rules(is_eager=True))
    while len(rig.remembered) < 4:
        rig.tick(images=not 2350 <= rig.since_ms + TICK_MS < 2650)  # slot 6: the second of frame 2
    given = [task.observation.step for task in rig.of(See)]
    assert given == [4, 8, 12, 20, 36, 40, 44]
    assert [task.num_seen for task in rig.remembered] == [0, 3, 1, 3]
    assert rig.episode.counts.grid.filled == 1


def test_what_was_given_of_a_frame_that_never_came_is_forgotten():
    rig = Bench(policy=BenchPolicy(ramp), num_steps=28)
    rig.until(lambda: len(rig.of(See)) == 5)
    rig.tick()
    assert rig.policy is not None
    assert len(rig.policy.seen) == 2
    rig.episode.set_instruction("anew")
    rig.until(lambda: len(rig.of(Begin)) == 2 and not rig.policy.seen)
    rig.run()
    assert rig.policy.seen == (), "and at the end too"
    assert [len(group) for group in rig.policy.groups] == [1, 4]


# --- a real policy


@pytest.fixture(scope="module")
def tiny(tiny_bundle):
    pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
    return Policy(opened(tiny_bundle, Opening(num_threads=1)))


@pytest.mark.parametrize(
    ("step_ms", "instruct_at"),
    [(25.0, {}), (600.0, {}), (25.0, {2100: False}), (150.0, {2100: True})],
)
def test_memory_and_chunks_are_equal_bit_for_bit(tiny, step_ms, instruct_at):
    found = []
    for is_eager in (False, True):
        done: list[tuple[object, ...]] = []

        def on_frame(task, frame, done=done):
            done.append((frame, memory_digest(tiny.session), task.num_seen > 0))

        def on_chunk(task, chunk, done=done):
            done.append((task.frame, chunk.tobytes(), False))

        rig = Bench(
            policy=tiny, contract=tiny.contract, act_ms=100.0, opens=False, cameras_run=False,
            num_steps=52, limit_rules=ANYTHING, instruction="random", grid_rules=AMPLE,
            rules=rules(is_eager=is_eager), latency=Latency(remember_ms=30.0, step_ms=step_ms),
            hooks={"on_frame": on_frame, "on_chunk": on_chunk},
        )  # fmt: skip
        run(rig, {("head", 40): "lost", (CAMERAS[0], 60): "late"}, instruct_at)
        assert rig.episode.aborted == ""
        assert tiny.session.encoder.num_seen == 0
        assert any(one[2] for one in done) == is_eager, "or nothing was tried"
        found.append([one[:2] for one in done] + [("end", memory_digest(tiny.session))])
    assert found[0] == found[1]
    assert len(found[0]) >= 6
