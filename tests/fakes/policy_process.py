"""A policy's process that moves arms, simulated unless told, until something happens to it."""

import json
import sys
import time

import numpy as np

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.arms.supervised_arm import SupervisedArm
from memorywam_robot.arms.supervisor_config import SupervisorConfig
from memorywam_robot.sim.joint_limits import simulated_limits

ACTIONS = contract_from_preset("tiny").actions


def main() -> None:
    """Open the arms, say where their link is, and wave them."""
    words: dict[str, str] = {}
    for word in sys.argv[1:]:
        name, _, words[name] = word.partition("=")
    config = SupervisorConfig(
        driver=words.get("driver", "sim:recall:0"),
        limits=simulated_limits(),
        actions=ACTIONS,
        linger_s=0.3,
    )
    arm = SupervisedArm(config, ready_s=120.0)
    pose = np.zeros(14)
    arm.state(pose)
    arm.start(pose)
    print(json.dumps({"link": arm.link_path, "supervisor": arm.supervisor_pid}), flush=True)  # noqa: T201
    began_s = time.monotonic()
    while True:
        if arm.mode == "stopped":  # so much else runs that this process had no turn for 0.2 s
            arm.operator_reset()
            arm.wait_for("holding", 2.0)
            arm.state(pose)
            arm.start(pose)
            began_s = time.monotonic()
        passed_s = time.monotonic() - began_s
        action = pose.copy()
        action[[0, 7]] = -1.4 if passed_s % 2 > 1 else 1.4  # at full speed most of the time
        arm.command(action)
        time.sleep(0.02)
        if "raise" in words and 0.25 < passed_s < 0.4:
            print(time.monotonic_ns(), flush=True)  # noqa: T201
            raise RuntimeError("the policy broke")


if __name__ == "__main__":
    main()
