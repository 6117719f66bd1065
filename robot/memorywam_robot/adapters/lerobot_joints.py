"""Joints of a contract as LeRobot's keys and units, and back."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import InputError

__all__ = ["LEROBOT_UNITS", "JointMap", "check_keys", "check_modes", "joint_map_from_contract"]

LEROBOT_UNITS = ("degrees", "range_m100_100", "range_0_100", "rad", "fraction")
"""What a motor bus can be set to speak, as LeRobot spells it, and what other robots do."""

_FACTORS = {("degrees", "rad"): math.pi / 180, ("range_0_100", "fraction"): 0.01}
"""(LeRobot's unit, the contract's) to what a value is multiplied by on the way to the contract.

`range_m100_100` stands for a share of a joint's calibrated range, which no contract knows: it
becomes no angle, and fits only a contract of the same unit.
"""


class JointMap:
    """Vectors in the contract's order and units to a host's keys, order and units, and back."""

    def __init__(
        self, keys: Sequence[str], factors: Sequence[float], order: Sequence[str] | None = None
    ) -> None:
        """Make a map.

        Args:
            keys: LeRobot's, in the contract's order.
            factors: What LeRobot's values are multiplied by.
            order: The same keys in the order of the host's vectors; the contract's by default.

        Raises:
            InputError: the order has other keys, or one twice.
        """
        self.keys = tuple(keys)
        self.order = self.keys if order is None else tuple(order)
        if sorted(self.order) != sorted(self.keys) or len(set(self.keys)) != len(self.keys):
            missing = sorted(set(self.keys) - set(self.order))
            others = sorted(set(self.order) - set(self.keys))
            raise InputError(
                f"the host's joints are not the contract's: without {missing}, with {others} "
                "besides, or one twice; rename them with joints=NAME:KEY+..."
            )
        self._factors = np.array(factors, np.float64)
        self._to_host = np.array([self.keys.index(key) for key in self.order])
        self._to_contract = np.array([self.order.index(key) for key in self.keys])

    def to_values(self, action: NDArray[np.floating]) -> dict[str, float]:
        """Return an action [action_dim] as LeRobot's robots take it.

        Raises:
            InputError: a wrong shape, or a number that is not finite.
        """
        vector = np.asarray(action, np.float64)
        if vector.shape != self._factors.shape or not np.isfinite(vector).all():
            raise InputError(
                f"found an action of shape {list(vector.shape)}, finite: "
                f"{bool(np.isfinite(vector).all())}; expected {len(self.keys)} finite numbers"
            )
        return dict(zip(self.keys, (vector / self._factors).tolist(), strict=True))

    def from_values(self, values: Mapping[str, object]) -> NDArray[np.float64]:
        """Return what a robot said of its joints [action_dim].

        Raises:
            InputError: a joint is missing.
        """
        if missing := [key for key in self.keys if key not in values]:
            raise InputError(f"found no '{missing[0]}' among {sorted(values)}")
        vector = np.array([values[key] for key in self.keys], np.float64)
        return np.asarray(vector * self._factors)

    def to_host(self, actions: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return actions [..., action_dim] in the host's order and units."""
        return np.asarray((actions / self._factors)[..., self._to_host], np.float64)

    def from_host(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return a host's vector [action_dim] in the contract's order and units.

        Raises:
            InputError: a wrong length.
        """
        if vector.shape != self._factors.shape:
            raise InputError(
                f"found a joint state {list(vector.shape)}; expected [{len(self.keys)}]"
            )
        return np.asarray(np.asarray(vector, np.float64)[self._to_contract] * self._factors)


def joint_map_from_contract(
    actions: ActionSpace,
    units: Mapping[str, str],
    *,
    keys: Mapping[str, str] | None = None,
    order: Sequence[str] | None = None,
) -> JointMap:
    """Return the map of a contract's joints.

    Args:
        actions: Names and units, and a state of the same joints.
        units: Each of the contract's units to LeRobot's; nothing is guessed.
        keys: A contract's name to LeRobot's key; `<name>.pos` for those not named.
        order: LeRobot's keys in the order of the host's vectors.

    Raises:
        InputError: nameless joints, an unknown unit, or two that cannot be converted.
    """
    if not actions.names or actions.state_dim != actions.action_dim:
        raise InputError(
            f"this contract names {len(actions.names)} joints, for {actions.action_dim} actions "
            f"and a state of {actions.state_dim}; expected a name each, the same for both: the "
            "order of joints is never guessed"
        )
    keys = keys or {}
    if unknown := sorted(set(keys) - set(actions.names)):
        raise InputError(f"no joint '{unknown[0]}'; the contract has {', '.join(actions.names)}")
    spoken = actions.units or ("rad",) * actions.action_dim
    return JointMap(
        [keys.get(name, f"{name}.pos") for name in actions.names],
        [_factor(units, unit) for unit in spoken],
        order,
    )


def check_keys(joints: JointMap, features: Iterable[str]) -> None:
    """Refuse a robot whose joints are not those of the contract.

    Args:
        joints: The contract's.
        features: Keys of the robot's actions.

    Raises:
        InputError: it has others, or more, or fewer.
    """
    if set(features) != set(joints.keys):
        raise InputError(
            f"this robot takes {sorted(features)}; the contract's joints are "
            f"{sorted(joints.keys)}: rename them with joints=NAME:KEY+..."
        )


def check_modes(
    joints: JointMap, actions: ActionSpace, units: Mapping[str, str], modes: Mapping[str, str]
) -> None:
    """Refuse units that a robot's motors contradict.

    Args:
        joints: Keys in the contract's order.
        actions: Their units.
        units: Each of the contract's units to LeRobot's, as declared.
        modes: LeRobot's keys to what their motor is set to; those not known are not checked.

    Raises:
        InputError: a motor speaks another unit than was declared.
    """
    spoken = actions.units or ("rad",) * actions.action_dim
    for key, unit in zip(joints.keys, spoken, strict=True):
        mode = modes.get(key)
        if mode is not None and mode != units[unit]:
            raise InputError(
                f"'{key}' is set to {mode}; units={unit}:{units[unit]} was said of it: set the "
                "motor's mode (use_degrees=true) or say what it speaks"
            )


def _factor(units: Mapping[str, str], unit: str) -> float:
    """Return what a value of LeRobot's is multiplied by to be of the contract's unit."""
    theirs = units.get(unit)
    if theirs is None or theirs not in LEROBOT_UNITS:
        found = f"units={unit}:{theirs}" if theirs else f"no unit for '{unit}'"
        raise InputError(
            f"found {found}; expected units={unit}:UNIT+... with one of {', '.join(LEROBOT_UNITS)}:"
            " LeRobot's values do not say what they are"
        )
    if theirs == unit:
        return 1.0
    if (theirs, unit) not in _FACTORS:
        raise InputError(
            f"cannot make '{unit}' of LeRobot's '{theirs}'; expected one of "
            f"{', '.join(a for a, b in _FACTORS if b == unit) or unit}, or {unit} itself"
        )
    return _FACTORS[theirs, unit]
