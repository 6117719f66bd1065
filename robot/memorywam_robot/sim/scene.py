"""The simulated table: two arms, three buttons, five lamps and the cameras, as a MuJoCo model."""

# mujoco's compiled module names nothing to a type checker.
# pyright: reportAttributeAccessIssue=false

import mujoco
import numpy as np
from numpy.typing import NDArray

from memorywam_robot.sim.tasks import BUTTONS

__all__ = [
    "CAMERA_SIZES",
    "FILM_CAMERA",
    "HOME",
    "JOINT_NAMES",
    "LAMP_COLOURS",
    "PRESSED_DEPTH_M",
    "SIDES",
    "SUBSTEPS",
    "model_from_nothing",
]

SIDES = ("left", "right")
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
JOINT_NAMES = tuple(f"{side}_{joint}" for side in SIDES for joint in (*ARM_JOINTS, "gripper"))
"""State and action in order: six joints in rad, then the gripper from 0 shut to 1 open."""
HOME: NDArray[np.float64] = np.array([0.0, -0.2, 0.56, 0.0, 1.21, 0.0, 1.0] * 2)
"""Nominal home pose [14]: both hands open, pointing down at the table."""

CONTROL_HZ = 10
TIMESTEP_S = 0.005
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP_S))
"""Physics steps in one environment step."""

CAMERA_SIZES: dict[str, tuple[int, int]] = {
    "left_wrist": (32, 32),
    "right_wrist": (32, 32),
    "head": (64, 64),
}
"""Camera name to image height and width, pixels."""
FILM_CAMERA = "film"

BUTTON_XY: tuple[tuple[float, float], ...] = ((-0.2, 0.03), (0.0, 0.03), (0.2, 0.03))
"""Nominal button centres on the table, metres; x to the right, y away from the robot."""
BUTTON_TOP_M = 0.05
BUTTON_TRAVEL_M = 0.025
PRESSED_DEPTH_M = 0.008
"""A button counts as pressed beyond this depth; far less than a full press, to be forgiving."""
GRIPPER_TRAVEL_M = 0.02

DARK = (0.07, 0.07, 0.08)
LAMP_COLOURS: dict[str, tuple[float, float, float]] = {
    "cue_left": (1.0, 0.85, 0.0),
    "cue_middle": (1.0, 0.85, 0.0),
    "cue_right": (1.0, 0.85, 0.0),
    "blink": (1.0, 0.1, 1.0),
    "go": (0.1, 1.0, 0.2),
}
"""Lamp name to its RGB colour when lit."""
_BUTTON_COLOURS = ("0.85 0.08 0.08", "0.1 0.3 0.95", "0.9 0.9 0.85")
_ARM_COLOURS = {"left": "0.85 0.45 0.15", "right": "0.15 0.6 0.65"}
_BASE_XY = {"left": "-0.27 -0.36", "right": "0.27 -0.36"}
# name, axis, lower and upper limit (rad), stiffness (N m / rad)
_JOINTS = (
    ("waist", "0 0 1", -1.6, 1.6, 150),
    ("shoulder", "0 1 0", -1.4, 1.4, 150),
    ("elbow", "0 1 0", -1.2, 1.8, 120),
    ("forearm_roll", "1 0 0", -2.0, 2.0, 60),
    ("wrist_angle", "0 1 0", -1.8, 2.0, 60),
    ("wrist_rotate", "1 0 0", -3.0, 3.0, 40),
)

_HEADER = f"""
<compiler angle="radian" autolimits="true"/>
<option timestep="{TIMESTEP_S}" integrator="implicitfast" gravity="0 0 0"/>
<visual>
  <headlight ambient="0.45 0.45 0.45" diffuse="0.35 0.35 0.35" specular="0 0 0"/>
  <quality offsamples="0"/>
  <map znear="0.01" zfar="10"/>
</visual>
<asset>
  <material name="lamp" emission="1" specular="0" shininess="0"/>
  <texture name="sky" type="skybox" builtin="gradient" rgb1="0.75 0.82 0.88"
    rgb2="0.35 0.4 0.48" width="32" height="192"/>
</asset>
<default>
  <geom contype="0" conaffinity="0" density="600"/>
  <joint damping="0.5" armature="0.02"/>
</default>
"""
# Nothing on the table is loose, so gravity would only add a droop that real arms compensate.


def _arm_xml(side: str) -> str:
    """Return the body tree of one arm; it reaches along +y, its hand along its own x."""
    joint = {
        name: f'<joint name="{side}_{name}" axis="{axis}" range="{low} {high}"/>'
        for name, axis, low, high, _ in _JOINTS
    }
    skin, steel = f'rgba="{_ARM_COLOURS[side]} 1"', 'rgba="0.16 0.17 0.19 1"'
    finger = (
        '<body name="{side}_finger{n}" pos="0.105 {y} 0">'
        '<joint name="{side}_finger{n}" type="slide" axis="0 {sign} 0" damping="2"'
        f' armature="0.05" range="0 {GRIPPER_TRAVEL_M}"/>'
        '<geom type="box" size="0.03 0.006 0.009" {steel}/></body>'
    )
    fingers = "".join(
        finger.format(side=side, n=n, y=sign * 0.012, sign=sign, steel=steel)
        for n, sign in enumerate((1, -1))
    )
    return f"""
<body name="{side}_base" pos="{_BASE_XY[side]} 0" euler="0 0 1.5707963">
  <geom type="cylinder" size="0.05 0.03" pos="0 0 0.03" {steel}/>
  <body name="{side}_turret" pos="0 0 0.06">{joint["waist"]}
    <geom type="cylinder" size="0.04 0.04" pos="0 0 0.04" {skin}/>
    <body name="{side}_upper" pos="0 0 0.07">{joint["shoulder"]}
      <geom type="capsule" size="0.03" fromto="0 0 0 0 0 0.27" {skin}/>
      <body name="{side}_forearm" pos="0 0 0.27">{joint["elbow"]}
        <geom type="cylinder" size="0.035 0.035" zaxis="0 1 0" {steel}/>
        <body name="{side}_roll">{joint["forearm_roll"]}
          <geom type="capsule" size="0.024" fromto="0 0 0 0.27 0 0" {skin}/>
          <body name="{side}_wrist" pos="0.27 0 0">{joint["wrist_angle"]}
            <geom type="cylinder" size="0.026 0.028" zaxis="0 1 0" {steel}/>
            <body name="{side}_hand">{joint["wrist_rotate"]}
              <geom type="capsule" size="0.02" fromto="0 0 0 0.05 0 0" {skin}/>
              <geom type="box" size="0.012 0.036 0.014" pos="0.065 0 0" {steel}/>
              {fingers}
              <geom name="{side}_tip" type="capsule" size="0.009" fromto="0.07 0 0 0.131 0 0"
                contype="1" conaffinity="2" {steel}/>
              <site name="{side}_tip" pos="0.14 0 0" size="0.004" group="4"/>
              <camera name="{side}_wrist" pos="0.02 0 0.06" xyaxes="0 -1 0 0.35 0 1" fovy="80"/>
            </body>
          </body>
        </body>
      </body>
    </body>
  </body>
</body>"""


def _button_xml(index: int) -> str:
    """Return one button on its spring, with the cue lamp behind it, in one movable body."""
    name, (x, y), half = BUTTONS[index], BUTTON_XY[index], 0.012
    centre = BUTTON_TOP_M - half
    return f"""
<body name="button_{name}" pos="{x} {y} 0">
  <geom type="cylinder" size="0.052 0.006" pos="0 0 0.006" rgba="0.12 0.12 0.13 1"/>
  {_lamp_xml(f"cue_{name}", "cylinder", "0.042 0.006", "0 0.115 0.006")}
  <body name="cap_{name}" pos="0 0 {centre}">
    <joint name="button_{name}" type="slide" axis="0 0 1" range="-{BUTTON_TRAVEL_M} 0"
      stiffness="100" damping="5" armature="0"/>
    <geom name="cap_{name}" type="cylinder" size="0.04 {half}" mass="0.05"
      contype="2" conaffinity="1" condim="3" rgba="{_BUTTON_COLOURS[index]} 1"/>
  </body>
</body>"""


def _lamp_xml(name: str, kind: str, size: str, position: str) -> str:
    """Return one lamp, dark."""
    rgba = " ".join(map(str, DARK))
    return (
        f'<geom name="lamp_{name}" type="{kind}" size="{size}" pos="{position}"'
        f' material="lamp" rgba="{rgba} 1"/>'
    )


def _actuators_xml(side: str) -> str:
    """Return position servos for six joints and for both fingers of the gripper."""
    arm = "".join(
        f'<position name="{side}_{name}" joint="{side}_{name}" kp="{stiffness}" dampratio="1"'
        f' ctrlrange="{low} {high}"/>'
        for name, _, low, high, stiffness in _JOINTS
    )
    fingers = "".join(
        f'<position name="{side}_finger{n}" joint="{side}_finger{n}" kp="100" dampratio="1"'
        f' ctrlrange="0 {GRIPPER_TRAVEL_M}"/>'
        for n in range(2)
    )
    return arm + fingers


def scene_xml() -> str:
    """Return the whole scene as MJCF text."""
    arms = "".join(map(_arm_xml, SIDES))
    buttons = "".join(_button_xml(index) for index in range(len(BUTTONS)))
    lamps = _lamp_xml("blink", "cylinder", "0.055 0.006", "0 -0.12 0.006") + _lamp_xml(
        "go", "box", "0.12 0.036 0.006", "0 0.285 0.006"
    )
    return f"""<mujoco model="two_arms">{_HEADER}
<worldbody>
  <light pos="0.3 -0.6 1.5" dir="-0.2 0.35 -1" directional="true" diffuse="0.35 0.35 0.35"
    specular="0 0 0"/>
  <geom name="table" type="box" size="0.55 0.46 0.02" pos="0 -0.02 -0.02"
    rgba="0.62 0.6 0.56 1"/>
  {arms}{buttons}{lamps}
  <camera name="head" pos="0 -0.01 0.95" xyaxes="1 0 0 0 1 0" fovy="42"/>
  <camera name="{FILM_CAMERA}" pos="0 -0.95 0.85" xyaxes="1 0 0 0 0.66 0.75" fovy="42"/>
</worldbody>
<actuator>{"".join(map(_actuators_xml, SIDES))}</actuator>
</mujoco>"""


def model_from_nothing() -> mujoco.MjModel:
    """Compile the scene with all buttons at their nominal places and all lamps dark."""
    return mujoco.MjModel.from_xml_string(scene_xml())
