"""The one door to gymnasium: `--robot gym:ID,key=value,...` to an environment."""

import importlib

from memorywam_robot.adapters.gym_robot import GymRobot
from memorywam_robot.adapters.robot_words import RobotWords
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError, MissingPartError

__all__ = ["robot_from_gym"]


def robot_from_gym(words: RobotWords, contract: InferenceContract) -> GymRobot:
    """Make an environment: `gym:ID,views=head:top+...,instruction=...,steps=N`, others are its own.

    Raises:
        InputError: an unknown environment or option, or one that does not fit the contract.
        MissingPartError: gymnasium or the environment's package is not installed.
    """
    views = {one: one for one in contract.observations.cameras} | words.pairs("views")
    instruction, num_steps = words.take("instruction"), words.steps(0)
    package = words.name.split("/")[0]
    try:
        gymnasium = importlib.import_module("gymnasium")
        if package != words.name and words.name not in gymnasium.registry:
            importlib.import_module(package)
    except ImportError as error:
        wanted = package.replace("_", "-")
        if error.name == "gymnasium":
            wanted = "'memorywam[gym]'"
        raise MissingPartError(
            f"'{words.name}' cannot be loaded ({error}); pip install {wanted}"
        ) from error
    try:
        env = gymnasium.make(words.name, **{"obs_type": "pixels_agent_pos"} | words.options)
    except (TypeError, gymnasium.error.Error) as error:
        raise InputError(f"cannot make '{words.name}': {error}") from error
    return GymRobot(env, contract, views, instruction=instruction, num_steps=num_steps)
