"""What the supervisor does with targets that the driver does not take."""

import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tests.fakes.arm_drivers import LaggingDriver

from memorywam_robot.arms.arm_command import CommandKind
from memorywam_robot.arms.arm_link import ArmLink
from memorywam_robot.arms.guard_words import Count
from memorywam_robot.arms.limits import JointLimits
from memorywam_robot.arms.supervisor import Supervisor
from memorywam_robot.arms.supervisor_config import SupervisorConfig

N = 3
ONES = np.ones(N)
PERIOD_NS = 10_000_000
LIMITS = JointLimits(
    lower=-ONES,
    upper=ONES,
    velocity=3 * ONES,
    acceleration=20 * ONES,
    step=np.inf * ONES,
    is_angle=ONES > 0,
)


class Rig:
    """A supervisor whose ticks come by hand, and the policy's side of it."""

    def __init__(self):
        self.link = ArmLink.create(N)
        self.driver = Refusing()
        config = SupervisorConfig(driver="", limits=LIMITS, parent_pid=os.getppid())
        self.supervisor = Supervisor(config, self.link, self.driver)
        self.supervisor._parent = SimpleNamespace(poll=lambda _: [])  # type: ignore[assignment]
        self.policy = ArmLink(self.link.descriptor)
        self.now_ns = time.monotonic_ns()

    def tick(self, value, count=1, kind=CommandKind.FOLLOW):
        """Command, and tick, so many times; return how the guard is then."""
        record = self.policy.command.record
        for _ in range(count):
            self.now_ns += PERIOD_NS
            record["sequence"] += 1
            record["epoch"], record["kind"], record["num_values"] = 1, kind, N
            record["action"], record["sent_ns"] = value, self.now_ns
            self.policy.command.write()
            self.supervisor._tick(self.now_ns)
        return self.supervisor._guard.mode.name

    @property
    def target(self):
        """What is sent along, of the first joint."""
        return float(self.supervisor._target[0])


class Refusing(LaggingDriver):
    """Takes nothing when it is told to."""

    is_refusing = False

    def write(self, target):
        if self.is_refusing:
            raise OSError("nothing is taken")
        super().write(target)

    @property
    def taken(self):
        """The last target, of the first joint."""
        return float(self._target[0])


@pytest.fixture
def rig():
    made = Rig()
    made.tick(0.0, kind=CommandKind.START)
    made.tick(1.0, 20)
    yield made
    os.close(made.link.descriptor)


def test_targets_that_were_missed_for_long_are_not_made_up_for(rig):
    held = rig.driver.taken
    assert held > 0.2  # on its way, at speed
    rig.driver.is_refusing = True
    assert rig.tick(1.0, 10) == "STOPPED"
    assert rig.target == held
    rig.driver.is_refusing = False
    assert rig.tick(1.0, 30) == "STOPPED"
    assert rig.driver.taken == rig.target == held


def test_one_that_was_missed_is(rig):
    rig.driver.is_refusing = True
    assert rig.tick(1.0, 2) == "FOLLOWING"
    rig.driver.is_refusing = False
    rig.tick(1.0, 1)
    assert rig.driver.taken == rig.target


def test_a_joint_without_torque_brakes_all_and_no_reset_counts(rig):
    rig.driver.is_powered = False
    assert rig.tick(1.0, 30) == "STOPPED"
    assert rig.driver.taken == rig.target
    rig.policy.ask_reset()
    assert rig.tick(1.0, 60) == "STOPPED"
    assert rig.supervisor._guard.counts[Count.REFUSED_RESETS] == 1
    rig.driver.is_powered = True
    rig.policy.ask_reset()
    assert rig.tick(1.0, 60) == "HOLDING"
