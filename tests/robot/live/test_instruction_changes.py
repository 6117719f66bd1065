"""`--then STEP:TEXT`: which changes are asked for, which are refused, and when they are made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.live import BenchPolicy
from tests.fakes.live_bench import AMPLE, bench, ramp
from tests.fakes.live_robot import NowRobot, run_of

from memorywam_robot.live.instruction_changes import (
    Changes,
    InstructionChange,
    changes_from_arguments,
    check_changes,
)
from memorywam_robot.live.live_result import result_of
from memorywam_robot.live.noise import noise_of_frame
from memorywam_robot.live.tasks import Begin, Instruct
from memorywam_robot.live.virtual_worker import Latency
from memorywam_robot.robot import Verdict
from memorywam_robot.summary import report_from_data, summary_html
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError


def change(step, text="another", *, keep=False):
    return InstructionChange(step=step, instruction=text, keep_memory=keep)


def test_what_is_asked_for():
    found = changes_from_arguments(["80:press: red", "120:then blue"], keep_memory=True)
    assert found == (change(80, "press: red", keep=True), change(120, "then blue", keep=True))
    assert changes_from_arguments(["1:a"]) == (change(1, "a"),)
    assert changes_from_arguments([]) == ()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["press red"], "found --then 'press red'; expected STEP:TEXT with a step above 0"),
        (["0:press red"], "expected STEP:TEXT with a step above 0"),
        (["-3:press red"], "expected STEP:TEXT with a step above 0"),
        (["²:press red"], "expected STEP:TEXT with a step above 0"),
        (["12: "], "found --then '12: '; expected STEP:TEXT"),
        (["12:a", "12:b"], "found --then 12 after --then 12; expected steps that rise"),
        (["12:a", "4:b"], "found --then 4 after --then 12; expected steps that rise"),
    ],
)
def test_what_is_refused(texts, words):
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        changes_from_arguments(texts)


def test_memory_to_keep_without_a_change_is_refused():
    with pytest.raises(InputError, match="found --keep-memory without --then"):
        changes_from_arguments([], keep_memory=True)


def test_a_change_after_the_end_is_refused():
    check_changes([change(15, keep=True)], 16)
    with pytest.raises(InputError, match="after step 16; expected a step below 16, where the epi"):
        check_changes([change(16, keep=True)], 16)
    check_changes([change(10), change(25)], 16)  # from empty memory there are as many steps again
    with pytest.raises(InputError, match="after step 25; expected a step below 16"):
        check_changes([change(10, keep=True), change(25)], 16)
    with pytest.raises(InputError, match="after step 26; expected a step below 26"):
        check_changes([change(10), change(26)], 16)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=4, unique_by=lambda c: c[0]))
def test_each_is_made_once_after_its_step(asked):
    changes = [change(step, f"text {step}", keep=keep) for step, keep in sorted(asked)]
    rig = bench(BenchPolicy(ramp), num_steps=48, rules=AMPLE)
    coming, made = Changes(changes), []
    real = rig.episode.set_instruction

    def noted(text, *, keep_memory=False):
        made.append((rig.episode.num_executed, text, keep_memory))
        real(text, keep_memory=keep_memory)

    rig.episode.set_instruction = noted
    while rig.tick():
        coming.make(rig.episode)
    rig.finish()
    assert made == [(one.step, one.instruction, one.keep_memory) for one in changes]
    last = max([one.step for one in changes if not one.keep_memory], default=0)
    assert rig.episode.num_executed == last + 48
    assert rig.episode.counts.instructions == changes
    assert [task.begun_after for task in rig.of(Begin)] == [
        None, *(one.step for one in changes if not one.keep_memory),
    ]  # fmt: skip
    kept = [(one.step, one.instruction) for one in changes if one.keep_memory]
    assert [(task.step, task.instruction) for task in rig.of(Instruct)] == kept


def test_the_chunk_that_is_asked_anew_is_of_the_newest_frame():
    """Where a frame came while it was made, it would act on more than it was asked for."""
    rig = bench(latency=Latency(remember_ms=10.0, step_ms=600.0), rules=AMPLE, num_steps=96,
                frames_per_chunk=2)  # fmt: skip
    rig.until(lambda: len(rig.remembered) == 2)
    assert [task.frame for task in rig.asked] == [0]
    rig.tick(5)
    assert not rig.episode.counts.act_ms, "or nothing is under way"
    rig.episode.set_instruction("another", keep_memory=True)
    asked = rig.asked[-1]
    assert (asked.frame, asked.requested_at, asked.attempt) == (1, 16, 0)
    assert asked.noise is not None
    assert asked.noise.tobytes() == noise_of_frame(rig.contract, 5, 1).tobytes()
    assert asked.state.tobytes() == rig.remembered[1].observations[-1].state.tobytes()
    rig.until(lambda: bool(rig.episode.counts.act_ms))
    assert rig.policy is not None
    order = [line for line in rig.policy.log if line[:3] in ("act", "ins", "rem")]
    assert order[:5] == ["remember 0", "act 0", "remember 1", "instruct another True", "act 1"]


def test_none_is_asked_anew_where_none_is_under_way():
    rig = bench(num_steps=96)
    rig.until(lambda: len(rig.asked) == 2 and rig.episode.counts.chunks == 2)
    rig.episode.set_instruction("another", keep_memory=True)
    assert len(rig.asked) == 2, "the chunk in force goes on"


def test_a_run_makes_them_and_refuses_those_after_the_end():
    policy, robot = BenchPolicy(), NowRobot(num_steps=6)
    run = run_of(policy, robot)
    try:
        with pytest.raises(InputError, match="after step 6; expected a step below 6"):
            run.episodes([1], changes=[change(6)])
        assert robot.body.commands == []
        assert robot.body.stops == ["an instruction after the episode's end"]
        changes = [change(2, "more", keep=True), change(4, "anew")]
        (result,) = run.episodes([1], changes=changes)
    finally:
        run.close()
    assert result.aborted == ""
    assert result.num_steps == 10
    assert result.counts.instructions == changes
    assert [line for line in policy.log if line[:3] in ("res", "ins")] == [
        "reset go 1 6", "instruct more True", "reset anew 1 6",
    ]  # fmt: skip


def test_the_page_tells_of_them():
    rig = bench(num_steps=40)
    rig.until(lambda: rig.episode.num_executed >= 3)
    rig.episode.set_instruction("press <b>", keep_memory=True)
    rig.run()
    result = result_of(rig.episode, Verdict(success=None), 4.0, 0.0)
    told = result.report()["instructions"]
    assert told == [{"step": 3, "instruction": "press <b>", "keep_memory": True}]
    html = summary_html(report_from_data({"loop": "async", "episodes": [result.report()]}))
    section = html[html.index("Other instructions on the way") :]
    assert "press &lt;b&gt;" in section
    assert "kept" in section[: section.index("</table>")]
    plain = result.report() | {"instructions": []}
    assert "Other instructions" not in summary_html(report_from_data({"episodes": [plain]}))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--then", "3:random"], "found --then or --keep-memory without --async"),
        (["--keep-memory"], "found --then or --keep-memory without --async"),
        (["--async", "--then", "3:unheard of"], "does not hold the instruction 'unheard of'"),
        (["--async", "--then", "x:random"], "expected STEP:TEXT"),
    ],
)
def test_the_program_refuses_before_anything_moves(tiny_bundle, capsys, words, said):
    pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
    run = ["run", str(tiny_bundle), "--robot", "sim:recall", "--instruction", "random"]
    assert main([*run, *words]) == 2
    assert said in capsys.readouterr().err


def test_states_of_frames_that_no_chunk_was_asked_for_are_their_own():
    rig = bench(BenchPolicy(ramp), num_steps=96, frames_per_chunk=2)
    rig.until(lambda: len(rig.remembered) == 4)
    assert [task.frame for task in rig.asked] == [0, 2]
    newest = rig.remembered[3].observations[-1].state
    np.testing.assert_array_equal(rig.episode._chunks._state, newest)
