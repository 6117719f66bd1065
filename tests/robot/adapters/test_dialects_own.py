"""The dialect of our own clients: frames, chunks, episodes and their snapshots."""

import numpy as np
import pytest
from tests.fakes.policy_server import joints, pictures

from memorywam_robot.adapters.dialects import PolicyService
from memorywam_robot.adapters.serving import DialectOptions
from memorywam_runtime.errors import CapacityError, InputError


def frame(contract, session, step, **more):
    shown = {"images": pictures(contract, step), "state": joints(contract, step)}
    return {"type": "frame", "session": session, "step": step} | shown | more


def begin(ask, **more):
    return ask({"type": "episode", "op": "begin", "instruction": "random", "seed": 0} | more)


def test_ours_bit_for_bit(talked, direct_policy, chunks):
    contract = direct_policy.contract
    ask = talked()
    started = begin(ask, max_steps=16 * len(chunks))
    session = started["session"]
    due = started["memory"]["expected_steps"]
    assert due == [0]
    for number, expected in enumerate(chunks):
        acks = [ask(frame(contract, session, step)) for step in due]
        assert [one["completed"] for one in acks] == [False] * (len(due) - 1) + [True]
        ack = acks[-1]
        assert ack["type"] == "ack"
        due = ack["memory"]["expected_steps"]
        assert ack["memory"]["fill"] == (number + 1) / 64
        reply = ask({"type": "chunk", "session": session, "after_frame": number})
        assert np.array_equal(reply["actions"], expected)
        about = {key: reply[key] for key in ("chunk", "after_frame", "seed", "instruction")}
        assert about == {"chunk": number, "after_frame": number, "seed": 0, "instruction": "random"}


def test_a_session_that_is_over(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    old = begin(ask)["session"]
    new = begin(ask)["session"]
    assert new != old
    for stale in (old, "", None, 3):
        with pytest.raises(InputError, match="is over or was never begun"):
            ask(frame(contract, stale, 0))
    ask(frame(contract, new, 0))
    assert ask({"type": "episode", "op": "end", "session": new})["session"] == ""
    with pytest.raises(InputError, match="is over or was never begun"):
        ask({"type": "chunk", "session": new})
    third = begin(ask)["session"]
    ask({"reset": True, "prompt": "random"})
    with pytest.raises(InputError, match="is over or was never begun"):
        ask(frame(contract, third, 0))


def test_a_chunk_that_is_asked_for_wrongly(talked, direct_policy):
    import time

    contract = direct_policy.contract
    ask = talked()
    session = begin(ask)["session"]
    with pytest.raises(InputError, match="found no joint state"):
        ask({"type": "chunk", "session": session})
    ask(frame(contract, session, 0))
    with pytest.raises(InputError, match="found after_frame 1; memory's newest frame is 0"):
        ask({"type": "chunk", "session": session, "after_frame": 1})
    with pytest.raises(InputError, match="found deadline_ms of type str"):
        ask({"type": "chunk", "session": session, "deadline_ms": "soon"})
    second_ago_ns = time.monotonic_ns() - 10**9
    with pytest.raises(InputError, match="its deadline was 500 ms: it is dropped"):
        ask({"type": "chunk", "session": session, "deadline_ms": 500}, second_ago_ns)
    late = {"type": "chunk", "session": session, "deadline_ms": 60_000}
    assert ask(late, second_ago_ns)["actions"].shape == (16, 14)
    ask(frame(contract, session, 4))
    # In the middle of a group: from the frames that are complete.
    assert ask({"type": "chunk", "session": session})["after_frame"] == 0


def test_a_snapshot_outlives_its_client(talked, direct_policy, served_policy):
    contract = direct_policy.contract
    service = PolicyService(served_policy, DialectOptions(max_snapshots=1))
    ask = talked(service=service)
    session = begin(ask)["session"]
    for step in (0, 4, 8, 12, 16):
        ask(frame(contract, session, step))
    kept = ask({"type": "episode", "op": "snapshot", "session": session})
    expected = ask({"type": "chunk", "session": session})["actions"]
    with pytest.raises(InputError, match="op forget frees one"):
        ask({"type": "episode", "op": "snapshot", "session": session})
    another = talked(service=service)
    begin(another)
    restored = another({"type": "episode", "op": "restore", "snapshot": kept["snapshot"]})
    assert restored["memory"]["frames_seen"] == 5
    assert restored["instruction"] == "random"
    session = restored["session"]
    state = joints(contract, 16)
    again = another({"type": "chunk", "session": session, "state": state})
    assert np.array_equal(again["actions"], expected)
    forget = {"type": "episode", "op": "forget", "snapshot": kept["snapshot"], "session": session}
    another(forget)
    with pytest.raises(InputError, match="found snapshot"):
        another(forget)


@pytest.mark.parametrize(("keeps", "version"), [(True, 2), (False, 0)])
def test_another_instruction(talked, direct_policy, served_policy, monkeypatch, keeps, version):
    contract = direct_policy.contract
    texts: list[str] = []
    known = served_policy._text

    def text(instruction):
        texts.append(instruction)
        return known("random")

    monkeypatch.setattr(served_policy, "_text", text)
    ask = talked()
    session = begin(ask)["session"]
    for step in (0, 4, 8, 12, 16):
        ask(frame(contract, session, step))
    change = {"type": "episode", "op": "set_instruction", "session": session, "instruction": "b"}
    with pytest.raises(InputError, match="`keep_memory`, true or false"):
        ask(change)
    reply = ask(change | {"keep_memory": keeps})
    assert reply["instruction"] == "b"
    assert reply["memory"]["memory_version"] == version
    assert reply["memory"]["expected_steps"] == ([20, 24, 28, 32] if keeps else [0])
    assert texts == ["random", "b"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "frames"}, "found type 'frames'; expected one of episode, frame, chunk"),
        ({"type": "episode", "op": "start"}, "found op 'start'; expected one of begin"),
        ({"type": "episode", "op": "begin"}, "found no prompt"),
        ({"type": "episode", "op": "begin", "instruction": "unknown"}, "does not hold"),
        ({"type": "episode", "op": "begin", "instruction": "random", "seed": -1}, "found seed -1"),
        ({"type": "episode", "op": "restore", "snapshot": "x"}, "found snapshot 'x'"),
    ],
)
def test_ours_what_is_refused(talked, message, expected):
    with pytest.raises(InputError, match=expected):
        talked()(message)


def test_an_episode_that_memory_cannot_hold(talked):
    with pytest.raises(CapacityError, match="needs"):
        begin(talked(), max_steps=10**6)


def test_ours_frames_that_are_refused(talked, direct_policy):
    contract = direct_policy.contract
    ask = talked()
    session = begin(ask)["session"]
    with pytest.raises(InputError, match="found no step"):
        ask({"type": "frame", "session": session})
    with pytest.raises(InputError, match=r"executed_actions .* expected \[n, 14\]"):
        ask(frame(contract, session, 0, executed_actions=np.zeros((4, 13))))
    ask(frame(contract, session, 0))
    with pytest.raises(InputError, match=r"none of steps \[4\]"):
        ask(frame(contract, session, 8))
