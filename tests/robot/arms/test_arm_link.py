"""What goes in at one end comes out at the other, and the memory outlives whoever is killed."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest

from memorywam_robot.arms.arm_command import ArmCommand, ArmRequests
from memorywam_robot.arms.arm_link import PAGE_BYTES, ArmLink
from memorywam_runtime.errors import InputError


@pytest.fixture
def link():
    made = ArmLink.create(3)
    yield made
    os.close(made.descriptor)


@pytest.fixture
def other(link):
    return ArmLink(link.descriptor)


def test_commands_go_down(link, other):
    command = ArmCommand(3)
    assert not other.read_command(command)
    record = link.command.record
    numbers = {
        "sequence": 7,
        "epoch": 2,
        "sent_ns": 10**15,
        "valid_ns": 5,
        "ramp_ns": 6,
        "kind": 1,
        "num_values": 4,
    }
    for name, value in numbers.items():
        record[name] = value
    record["action"] = [1, 2, np.nan]
    link.command.write()
    assert other.read_command(command)
    assert {name: getattr(command, name) for name in numbers} == numbers
    np.testing.assert_array_equal(command.action, [1, 2, np.nan])
    assert not other.read_command(command)


def test_state_and_page_go_up(link, other):
    other.state.record["measured"] = [1, 2, 3]
    other.state.record["detail"] = b"why"
    other.state.write()
    assert link.state.read()
    np.testing.assert_array_equal(link.state.record["measured"], [1, 2, 3])
    assert link.state.record["detail"].item() == b"why"
    other.page[-1] = 9
    assert len(link.page) == PAGE_BYTES
    assert link.page[-1] == 9
    assert link.num_joints == other.num_joints == 3


def test_each_request_is_a_word_of_its_own(link, other):
    asked = ArmRequests()

    def heard():
        other.read_requests(asked)
        return {name: getattr(asked, name) for name in ArmRequests.__slots__}

    expected = dict.fromkeys(ArmRequests.__slots__, 0)
    assert heard() == expected
    link.press_estop()
    assert heard() == (expected := expected | {"estop_is_pressed": 1, "estop_presses": 1})
    link.release_estop()
    assert heard() == (expected := expected | {"estop_is_pressed": 0})
    link.ask_reset()
    assert heard() == (expected := expected | {"resets": 1})
    link.ask_home()
    assert heard() == (expected := expected | {"homes": 1})
    link.ask_stop(4)
    assert heard() == (expected := expected | {"stops": 1, "stop_epoch": 4})
    assert not other.is_closing
    link.ask_close()
    assert other.is_closing
    assert heard() == expected


def test_a_stranger_memory_is_refused(tmp_path):
    path = tmp_path / "memory"
    path.write_bytes(bytes(100_000))
    with pytest.raises(InputError, match="found shared memory marked 0x0; expected 0x6d77616d"):
        ArmLink.attach(str(path))


def test_another_process_attaches_by_path(link):
    path = f"/proc/{os.getpid()}/fd/{link.descriptor}"
    code = "import sys; from memorywam_robot.arms.arm_link import ArmLink; "
    code += "ArmLink.attach(sys.argv[1]).press_estop()"
    subprocess.run([sys.executable, "-W", "error", "-c", code, path], check=True)
    asked = ArmRequests()
    link.read_requests(asked)
    assert asked.estop_is_pressed


def test_the_memory_outlives_whoever_made_it_and_leaves_nothing_behind(tmp_path):
    code = """
import os, time
from memorywam_robot.arms.arm_link import ArmLink
link = ArmLink.create(3)
link.press_estop()
print(link.descriptor, flush=True)
time.sleep(60)
"""
    maker = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert maker.stdout is not None
    descriptor = int(maker.stdout.readline())
    ours = ArmLink.attach(f"/proc/{maker.pid}/fd/{descriptor}")
    os.kill(maker.pid, signal.SIGKILL)
    maker.wait()
    maker.stdout.close()
    time.sleep(0.05)
    asked = ArmRequests()
    ours.read_requests(asked)
    assert asked.estop_is_pressed
    ours.release_estop()
    assert list(tmp_path.iterdir()) == []


def test_reading_and_writing_allocate_nothing_that_grows(link, other):
    command, asked = ArmCommand(3), ArmRequests()

    def ticks(count):
        for number in range(count):
            link.command.record["sequence"] = number
            link.command.write()
            other.read_command(command)
            other.read_requests(asked)
            other.state.record["measured"] = command.action
            other.state.write()
            link.state.read()

    ticks(50)
    tracemalloc.start()
    # As often as what is measured: Python 3.10 keeps 2 kB once after some hundred turns.
    ticks(2000)
    before = tracemalloc.get_traced_memory()[0]
    ticks(2000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 500
