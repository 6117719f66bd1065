"""A recording of an episode with other instructions on its way replays to the same bits."""

from dataclasses import replace

import numpy as np
import pytest
from tests.fakes.bundles import edit_manifest
from tests.fakes.live import calm_bundle
from tests.fakes.step_recordings import recording_of

from memorywam_robot.live.instruction_changes import InstructionChange
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import LoadRules, load_from_measured
from memorywam_robot.live.virtual_worker import Latency
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of
from memorywam_runtime.observation import Observation
from memorywam_runtime.opening import Opening, opened
from memorywam_runtime.policy import Policy
from memorywam_runtime.recording import (
    Acted,
    Event,
    Instructed,
    Observed,
    Remembered,
    Sent,
    open_recording,
)

pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")
pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("mcap", reason="needs the extra memorywam[record]")

OTHER = "other"


@pytest.fixture(scope="module")
def bundle(tiny_bundle, tmp_path_factory):
    """A calm one with a second instruction: the keys of the first, turned round."""
    path = calm_bundle(tiny_bundle, tmp_path_factory.mktemp("two"))

    def add(manifest):
        (prompt,) = manifest["prompts"]
        numbers = np.frombuffer((path / prompt["file"]).read_bytes(), np.float32)
        file = path / "prompts" / "other.bin"
        file.write_bytes((-2 * numbers[::-1]).tobytes())
        manifest["prompts"].append(prompt | {"text": OTHER, "file": "prompts/other.bin"})
        known = manifest["files"][prompt["file"]]
        manifest["files"]["prompts/other.bin"] = known | {"sha256": sha256_of(file)}

    edit_manifest(path, add)
    return path


@pytest.fixture(scope="module")
def policy(bundle):
    return Policy(opened(bundle, Opening(num_threads=1)))


def change(step, text=OTHER, *, keep=False):
    return InstructionChange(step=step, instruction=text, keep_memory=keep)


CASES: dict[str, tuple[list[InstructionChange], int, float, int]] = {
    "kept": ([change(21, keep=True)], 44, 12.0, 1),
    "emptied": ([change(21)], 28, 12.0, 1),
    "emptied before a frame was taken": ([change(16)], 24, 12.0, 1),
    "emptied in the middle of a chunk": ([change(19)], 24, 150.0, 1),
    "kept in the middle of a chunk": ([change(18, keep=True)], 44, 150.0, 1),
    "kept as memory goes on beside a chunk": ([change(18, keep=True)], 60, 600.0, 3),
    "none, and a chunk that gave way": ([], 60, 1700.0, 2),
    "there and back": (
        [change(7, keep=True), change(18), change(38, "random", keep=True)], 40, 12.0, 1,
    ),
}  # fmt: skip
"""Changes, steps of the episode, milliseconds of a denoising step, frames from chunk to chunk."""


@pytest.mark.parametrize("name", CASES)
def test_simulated_time(policy, bundle, tmp_path, name):
    from memorywam_robot.live.live_recorder import LiveRecorder
    from memorywam_robot.live.virtual_run import VirtualRun
    from memorywam_robot.recorder import Recorder
    from memorywam_robot.replay import replay_exactly

    changes, num_steps, step_ms, frames = CASES[name]
    load = load_from_measured(policy.contract, remember_ms=30, act_ms=120)
    load = replace(load, num_executed=16 * frames)
    latency = Latency(remember_ms=30.0, step_ms=step_ms)
    with Recorder(
        tmp_path, policy, robot="sim:recall", num_threads=1, records_memory=True, loop="async"
    ) as recorder:
        run = VirtualRun(
            policy, policy.contract, "recall", load=load, latency=latency,
            rules=LiveRules(starved_ms=20_000), tellers=[LiveRecorder(recorder)],
        )  # fmt: skip
        try:
            result = run.episode(3, num_steps=num_steps, instruction="random", changes=changes)
        finally:
            run.close()
        (written,) = recorder.written
    assert written.complaint == ""
    assert result.aborted == ""
    recording = open_recording(written.path)
    events = list(recording.events())
    told = [event for event in events if isinstance(event, Instructed)]
    assert [(one.step, one.instruction, one.keep_memory) for one in told] == [
        (one.step, one.instruction, one.keep_memory) for one in changes
    ]
    if "middle of a chunk" in name:
        assert result.counts.chunks_replaced or not changes[0].keep_memory, "or nothing was tried"
    if "before a frame" in name:
        earlier = events[: events.index(told[0])]
        seen = [one.observation.step for one in earlier if isinstance(one, Observed)]
        assert seen == [0, 4, 8, 12, 16]
        assert sum(isinstance(one, Remembered) for one in earlier) == 1
    if "gave way" in name:
        assert result.counts.chunks_replaced == 1
    if "beside" in name:
        place = events.index(told[0])
        before = [one.frame for one in events[:place] if isinstance(one, Remembered)]
        assert before == [0, 1]
        made = next(one for one in events[place:] if isinstance(one, Acted))
        assert made.frame == 1
        assert len(made.chunk)
    policies = Policy(opened(bundle, Opening(num_threads=1)))
    replayed = replay_exactly(policies, recording)
    assert replayed.is_equal
    acted = [event for event in events if isinstance(event, Acted) and len(event.chunk)]
    assert len(replayed.chunks) == len(acted) >= 2 - (not changes)
    # And it would tell: with one instruction from the start to the end it is another episode.
    assert replay_exactly(policies, recording, instruction="random").is_alike == (not changes)


def test_real_time(bundle, tmp_path):
    from memorywam_robot.live.grid_rules import GridRules
    from memorywam_robot.live.live_recorder import LiveRecorder
    from memorywam_robot.live.live_run import LiveRun
    from memorywam_robot.live.live_simulated import LiveSimulated
    from memorywam_robot.recorder import Recorder
    from memorywam_robot.replay import replay_against_actions, replay_exactly

    class ShortJobs(LiveSimulated):
        """The simulator, with jobs of few steps."""

        def start(self, seed):
            return replace(super().start(seed), num_steps=12)

    own = Policy(opened(bundle, Opening(num_threads=1)), num_steps=2)
    # What is tried is that it replays, not that this machine is quick.
    rules = LoadRules(longest_bridge_ms=5000, most=9.0, margin=1.0)
    robot = ShortJobs("recall", camera_hz=5.0)
    try:
        with Recorder(
            tmp_path, own, robot="sim:recall", num_threads=1, records_memory=True, loop="async"
        ) as recorder:
            run = LiveRun(
                own, robot, load=load_from_measured(own.contract, remember_ms=40, act_ms=80,
                                                    rules=rules),
                grid_rules=GridRules(camera_hz=5.0, late_ms=2000, stop_after_ms=5000,
                                     skew_refused_share=1.0),
                rules=LiveRules(starved_ms=20_000), tellers=[LiveRecorder(recorder)],
            )  # fmt: skip
            try:
                changes = [change(3, keep=True), change(6, "random"), change(9, keep=True)]
                (result,) = run.episodes([3], instruction="random", changes=changes)
            finally:
                run.close()
    finally:
        robot.close()
    assert result.aborted == ""
    assert result.num_steps == 18
    (written,) = recorder.written
    recording = open_recording(written.path)
    told = [event for event in recording.events() if isinstance(event, Instructed)]
    assert [one.step for one in told] == [one.step for one in result.counts.instructions]
    again = Policy(opened(bundle, Opening(num_threads=1)), num_steps=2)
    assert replay_exactly(again, recording).is_equal
    # What anybody needs to know: such a file is more than one episode.
    with pytest.raises(InputError, match="memory was emptied after step 6"):
        replay_against_actions(again, recording)


def test_actions_of_two_tasks_beside_the_policy(policy):
    """As in a dataset whose task changes: every chunk is made with the text in force."""
    from memorywam_robot.replay import replay_against_actions

    contract = policy.contract
    rng = np.random.default_rng(3)
    height, width = contract.observations.height, contract.observations.width
    picture = rng.integers(0, 255, (height, width, 3), np.uint8)
    images = dict.fromkeys(contract.observations.cameras, picture)
    seen = [
        Observation(images=images, state=rng.standard_normal(14), step=step)
        for step in range(0, 36, 4)
    ]

    def chunks(told):
        """Those of three frames; the text changes after the first, or does not."""
        policy.reset("random", seed=4)
        held, found = [], []
        for one in seen:
            if one.step == 12 and told:
                policy.set_instruction(OTHER, keep_memory=True)
            held.append(one)
            if one.step == policy.expected_steps()[-1]:
                policy.remember(held)
                found.append(policy.act(one.state))
                held = []
        return found

    expected = chunks(told=True)
    actions = np.concatenate(expected)
    events: list[Event] = []
    for one in seen:
        if one.step == 12:
            events.append(Instructed(step=12, instruction=OTHER, keep_memory=True, received_ns=0))
        events.append(Observed(observation=one, captured_ns=0, received_ns=0))
        events += [
            Sent(step=step, action=actions[step - 1], received_ns=0)
            for step in range(one.step + 1, one.step + 5)
        ]
    recording = recording_of(
        events, instruction="random", cameras=contract.observations.cameras, state_dim=14,
        action_dim=14, action_names=(), control_hz=contract.observations.control_hz, max_steps=36,
    )  # fmt: skip
    found = replay_against_actions(policy, recording, seed=4)
    assert found.num_chunks == 3
    assert not found.worst_errors.any()
    # And it would tell: with the first text to the end it is another episode.
    other = replay_against_actions(policy, recording, seed=4, instruction="random")
    assert other.worst_errors.any()
    np.testing.assert_array_equal(chunks(told=False)[0], expected[0])
