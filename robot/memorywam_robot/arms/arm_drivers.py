"""Drivers of arms by name: each is imported when it is opened, in the process that owns it."""

import importlib
from collections.abc import Callable
from typing import cast

from memorywam_robot.arm import ArmDriver
from memorywam_robot.sim.tasks import TASKS
from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import InputError, MissingPartError

__all__ = ["driver_from_argument", "opener_from_argument"]

_EXPECTED = (
    f"sim:TASK:SEED with TASK one of {', '.join(TASKS)}, lerobot:TYPE[,KEY=VALUE...], or "
    "python:MODULE:FUNCTION[:TEXT]"
)


def driver_from_argument(
    argument: str, page: memoryview, actions: ActionSpace | None = None
) -> ArmDriver:
    """Open the connection to the joints.

    Args:
        argument: `sim:TASK:SEED` for the simulated arms, in real time, `sim-expert:TASK:SEED` with
            the expert moving them; `lerobot:TYPE` for a robot of LeRobot's; or
            `python:MODULE:FUNCTION` for a function of one's own that takes the text after another
            colon, and the page.
        page: Shared memory, for whatever a driver and its readers have between them.
        actions: The contract's names and units of joints, for drivers that go by them.

    Raises:
        InputError: no such driver, the forms that there are are listed; or other joints.
        MissingPartError: a part that it needs is not installed.
    """
    kind, _, rest = argument.partition(":")
    if kind in ("sim", "sim-expert"):
        task, _, seed = rest.partition(":")
        if task not in TASKS or not seed.isdecimal():
            raise InputError(f"unknown arms '{argument}'; expected {_EXPECTED}")
        if kind == "sim-expert":
            from memorywam_robot.arms.expert_driver import open_expert

            return open_expert(task, int(seed), page)
        from memorywam_robot.sim.live import open_live

        return open_live(task, int(seed), page)
    if kind == "lerobot" and rest:
        if actions is None:
            raise InputError(f"'{argument}' goes by the names of joints; expected a contract's")
        from memorywam_robot.adapters.lerobot_driver import open_lerobot
        from memorywam_robot.adapters.robot_words import words_from_argument

        return open_lerobot(words_from_argument(rest), actions)
    opener, text = opener_from_argument(argument)
    return cast("ArmDriver", opener(text, page))


def opener_from_argument(argument: str) -> tuple[Callable[[str, memoryview], object], str]:
    """Return the function that `python:MODULE:FUNCTION[:TEXT]` names, not called, and its text.

    Raises:
        InputError: another form.
        MissingPartError: there is no such module or function.
    """
    kind, _, rest = argument.partition(":")
    module, _, rest = rest.partition(":")
    function, _, text = rest.partition(":")
    if kind != "python" or not module or not function:
        raise InputError(f"unknown arms '{argument}'; expected {_EXPECTED}")
    try:
        return getattr(importlib.import_module(module), function), text
    except (ImportError, AttributeError) as error:
        raise MissingPartError(
            f"arms '{argument}': {error}; install the package that has them"
        ) from error
