"""What the supervisor is told is what was meant, number for number."""

from dataclasses import fields

import numpy as np
import pytest
from tests.fakes.guard_rig import LIMITS

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.arms.guard_rules import GuardRules
from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.arms.supervisor_config import SupervisorConfig
from memorywam_runtime.errors import InputError


@pytest.mark.parametrize("home", [None, (0.1, 1 / 3, 0.5)])
def test_a_line_says_all(home):
    config = SupervisorConfig(
        driver="sim:recall:7",
        limits=LIMITS,
        period_ns=20_000_000,
        rules=GuardRules(heartbeat_ms=70, max_bad_commands=4),
        limit_rules=LimitRules(approach_rad_per_s=0.1),
        home=home,
        is_real_time=False,
        linger_s=0.25,
        is_watching=True,
        actions=contract_from_preset("tiny").actions if home else None,
        descriptor=9,
        parent_pid=1234,
    )
    line = config.to_json()
    assert "\n" not in line
    found = SupervisorConfig.from_json(line)
    for field in fields(config):
        if field.name != "limits":
            assert getattr(found, field.name) == getattr(config, field.name)
    for field in fields(LIMITS):
        ours, theirs = getattr(LIMITS, field.name), getattr(found.limits, field.name)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("period_ns", [0, -1, 999_999, 100_000_001])
def test_a_rate_that_no_arm_has_is_refused(period_ns):
    with pytest.raises(InputError, match="expected 1 to 100 ms"):
        SupervisorConfig(driver="x", limits=LIMITS, period_ns=period_ns)
