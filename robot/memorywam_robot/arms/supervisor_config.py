"""SupervisorConfig: all that the process of the arms is told before it begins, as one JSON line."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import msgspec
import numpy as np

from memorywam_robot.arms.guard_rules import GuardRules
from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.arms.limits import JointLimits
from memorywam_runtime.contract import ActionSpace
from memorywam_runtime.errors import InputError

__all__ = ["SupervisorConfig", "check_watched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorConfig:
    """How the arms are driven and guarded."""

    driver: str
    """As `driver_from_argument` takes it."""
    limits: JointLimits
    actions: ActionSpace | None = None
    """Names and units of the joints, for drivers that go by them."""
    period_ns: int = 10_000_000
    rules: GuardRules = field(default_factory=GuardRules)
    limit_rules: LimitRules = field(default_factory=LimitRules)
    home: tuple[float, ...] | None = None
    is_real_time: bool = True
    """Ask for priority and locked memory, and go on without where that is not permitted."""
    linger_s: float = 1.0
    """How long the joints are still held and told of after their policy is gone."""
    is_watching: bool = False
    """Measure and tell, and write nothing: somebody else moves the arms."""
    descriptor: int = -1
    """Of the link's memory, inherited."""
    parent_pid: int = 0

    def __post_init__(self) -> None:
        """Refuse a rate that no arm has, and to watch arms that opening them would move."""
        if not 1_000_000 <= self.period_ns <= 100_000_000:
            raise InputError(
                f"found a period of {self.period_ns} ns; expected 1 to 100 ms, and 10 as a rule"
            )
        if self.is_watching:
            check_watched(self.driver)

    def to_json(self) -> str:
        """Return one line."""
        shown: dict[str, Any] = {item.name: getattr(self, item.name) for item in fields(self)}
        shown["limits"] = {
            item.name: getattr(self.limits, item.name).tolist() for item in fields(self.limits)
        }
        shown["actions"] = msgspec.to_builtins(self.actions)
        shown["rules"], shown["limit_rules"] = asdict(self.rules), asdict(self.limit_rules)
        return json.dumps(shown)

    @classmethod
    def from_json(cls, line: str) -> "SupervisorConfig":
        """Return what `to_json` wrote."""
        found = json.loads(line)
        limits = {name: np.array(values) for name, values in found.pop("limits").items()}
        home = found.pop("home")
        actions = msgspec.convert(found.pop("actions"), ActionSpace | None)
        return cls(
            limits=JointLimits(**limits),
            rules=GuardRules(**found.pop("rules")),
            limit_rules=LimitRules(**found.pop("limit_rules")),
            home=None if home is None else tuple(home),
            actions=actions,
            **found,
        )


def check_watched(driver: str) -> None:
    """Refuse to watch arms that opening them would move.

    Raises:
        InputError: they are LeRobot's.
    """
    if driver.startswith("lerobot:"):
        raise InputError(
            f"found --shadow with {driver.partition(',')[0]}; expected arms that are only read: as "
            "it connects, LeRobot turns the motors' torque off, so that they drop, and on again, "
            "so that no hand moves them; name a driver:python:MODULE:FUNCTION that reads them "
            "where they are moved from"
        )
