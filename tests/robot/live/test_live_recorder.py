"""What a recorder hears of an episode that keeps time, and of one that never began."""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from tests.fakes.live import BenchPolicy, at
from tests.fakes.live_bench import Bench, ramp

from memorywam_robot.live.live_recorder import LiveRecorder
from memorywam_robot.live.live_result import result_of
from memorywam_robot.live.tasks import Begin
from memorywam_robot.robot import Verdict
from memorywam_runtime.errors import MemorywamError


@dataclass
class Ear:
    """In place of a recorder: what it was told, in order."""

    heard: list[tuple[object, ...]] = field(default_factory=list)

    def on_episode_start(self, start):
        self.heard.append(("start", start.seed, start.instruction, start.num_steps))

    def on_observation(self, observation, captured_ns):
        self.heard.append(("observation", observation.step))

    def on_frame(self, frame, steps):
        self.heard.append(("frame", frame, tuple(steps)))

    def on_made(self, frame, state, chunk, prefix, attempt=0):
        self.heard.append(("chunk", frame, attempt, 0 if prefix is None else len(prefix)))

    def on_given_up(self, frame, state, prefix, attempt=0):
        self.heard.append(("given up", frame, attempt))

    def on_instruction(self, step, instruction, *, keep_memory):
        self.heard.append(("instruction", step, instruction, keep_memory))

    def on_step(self, step, action, state):
        self.heard.append(("step", step))

    def on_episode_end(self, result):
        self.heard.append(("end", result.num_steps, result.num_frames, result.remark))


def recorded(policy, num_steps=40, then=(), **words):
    ear = Ear()
    recorder = LiveRecorder(ear)  # type: ignore[arg-type]
    hooks = {
        "on_begin": recorder.on_begin,
        "on_frame": recorder.on_frame,
        "on_chunk": recorder.on_chunk,
        "on_given_up": recorder.on_given_up,
        "on_instruct": recorder.on_instruct,
    }
    rig = Bench(policy=policy, listeners=[recorder], hooks=hooks, num_steps=num_steps,
                opens=False, **words)  # fmt: skip
    for step, text, keep_memory in then:
        while rig.episode.num_executed < step:
            rig.tick()
        rig.episode.set_instruction(text, keep_memory=keep_memory)
    rig.run()
    recorder.end(result_of(rig.episode, Verdict(success=None, remark="seen"), 1.0, 0.0))
    return ear.heard, rig


def test_everything_is_passed_on_in_its_order():
    heard, rig = recorded(BenchPolicy(lambda frame: at(0.001 * frame, 32)))
    assert heard[0] == ("start", 5, "go", 40)
    assert heard[-1] == ("end", 40, 3, "seen")
    assert [line for line in heard if line[0] == "frame"] == [
        ("frame", 0, (0,)), ("frame", 1, (4, 8, 12, 16)), ("frame", 2, (20, 24, 28, 32)),
    ]  # fmt: skip
    assert [line for line in heard if line[0] == "chunk"] == [
        ("chunk", 0, 0, 0), ("chunk", 1, 0, 3), ("chunk", 2, 0, 3),
    ]  # fmt: skip
    assert [line[1] for line in heard if line[0] == "step"] == list(range(1, 41))
    # A frame stands after all of its observations, and a chunk after its frame.
    for frame, steps in ((0, (0,)), (1, (4, 8, 12, 16)), (2, (20, 24, 28, 32))):
        place = heard.index(("frame", frame, steps))
        assert all(heard.index(("observation", step)) < place for step in steps)
        chunk = next(k for k, line in enumerate(heard) if line[:2] == ("chunk", frame))
        assert place < chunk
    assert len(heard) == 2 + 9 + 3 + 3 + 40
    assert np.isfinite(rig.episode.executed).all()


def test_an_episode_that_never_began_has_no_ending():
    policy = BenchPolicy()
    policy.failing["reset"] = deque([MemorywamError("no such text")])
    heard, rig = recorded(policy)
    assert heard == []
    assert rig.episode.aborted == "the policy failed: no such text"


def test_an_aborted_episode_ends_once_with_its_reason():
    policy = BenchPolicy()
    policy.failing["remember"] = deque([None, MemorywamError("full")])
    heard, _ = recorded(policy)
    assert heard[-1][0] == "end"
    assert heard[-1][3] == "aborted: the policy failed: full; seen"
    assert [line[0] for line in heard].count("end") == 1


def test_other_instructions_are_passed_on_in_their_place():
    heard, _ = recorded(
        BenchPolicy(ramp), num_steps=40, then=[(20, "more", True), (25, "anew", False)]
    )
    assert heard[0] == ("start", 5, "go", 40)
    assert [line for line in heard if line[0] in ("start", "end")] == [heard[0], heard[-1]]
    kept, anew = (
        heard.index(("instruction", 20, "more", True)),
        heard.index(("instruction", 25, "anew", False)),
    )
    assert heard.index(("step", 20)) < kept < heard.index(("step", 23))
    frames = [(place, line[1]) for place, line in enumerate(heard) if line[0] == "frame"]
    assert [frame for place, frame in frames if place < anew] == [0, 1]
    assert [frame for place, frame in frames if place > anew] == [0, 1, 2]
    seen = [line[1] for line in heard[anew:] if line[0] == "observation"]
    assert seen == list(range(0, 36, 4)), "steps of observations count from 0 again"
    assert [line[1] for line in heard if line[0] == "step"] == list(range(1, 66))
    assert heard[-1][:2] == ("end", 65)


def test_an_instruction_before_memory_was_ever_ready_is_the_first():
    """The first beginning was never made: the file is of the second."""
    ear = Ear()
    recorder = LiveRecorder(ear)  # type: ignore[arg-type]
    recorder.on_begin(Begin(epoch=2, instruction="anew", seed=1, max_steps=9, begun_after=0))
    assert ear.heard == [("start", 1, "anew", 9)]


def test_a_chunk_that_gave_way_is_passed_on_where_it_did():
    heard, _ = recorded(BenchPolicy(ramp), num_steps=40, then=[(18, "more", True)], act_ms=600.0)
    place = heard.index(("given up", 1, 0))
    assert heard[place + 1] == ("instruction", 18, "more", True)
    assert [line for line in heard if line[0] == "given up"] == [heard[place]]
