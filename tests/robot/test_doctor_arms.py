"""What the doctor says of arms: whether they could be opened; it opens none."""

import sys

import pytest

from memorywam_robot.doctor_arms import _port, _ports, arm_findings


def test_a_driver_that_is_there_is_not_called():
    (found,) = arm_findings("driver:python:tests.fakes.arm_drivers:open_lagging:raise=can0")
    assert found.status == "ok"
    assert "open_lagging:raise=can0 is there; not connected: run --dry-run" in found.found


@pytest.mark.parametrize(
    ("robot", "said"),
    [
        ("driver:python:nothing_there:opened", "No module named 'nothing_there'"),
        ("driver:python:tests.fakes.arm_drivers:nothing", "no attribute 'nothing'"),
        ("driver:sim", "unknown arms 'sim'; expected sim:TASK:SEED"),
        ("lerobot:so101_follower,port", "expected key=value"),
    ],
)
def test_a_driver_that_is_not(robot, said):
    (found,) = arm_findings(robot)
    assert (found.status, found.part, bool(found.fix)) == ("missing", "arms", True)
    assert said in found.found


def test_a_module_that_raises_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "raises_when_imported.py").write_text("raise OSError('no bus')\n")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = arm_findings("driver:python:raises_when_imported:opened")
    assert (found.status, "no bus" in found.found) == ("missing", True)


def test_without_lerobot_it_says_what_to_install():
    if "lerobot" in sys.modules:
        pytest.skip("LeRobot is installed here")
    (found,) = arm_findings("lerobot:so101_follower,port=/dev/ttyACM0")
    assert (found.status, "pip install 'lerobot[feetech]'" in found.found) == ("missing", True)


def test_other_robots_have_no_driver():
    assert list(arm_findings("sim:recall")) == []
    assert list(arm_findings("gym:x")) == []


def test_ports_of_both_arms_are_looked_for(tmp_path):
    class Arm:
        def __init__(self, port):
            self.port, self.use_degrees = port, True

    class Pair:
        def __init__(self):
            self.left_arm_config, self.right_arm_config = Arm("/dev/null"), Arm("/dev/no-such")

    first, second = (_port(path) for path in _ports(Pair()))
    assert (first.status, first.found) == ("ok", "there, and may be opened")
    assert (second.status, second.found, bool(second.fix)) == ("missing", "not there", True)
