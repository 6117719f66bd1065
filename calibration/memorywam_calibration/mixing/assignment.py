"""Assignment: which product gets which recipe, under a budget, with the least error expected."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from memorywam_calibration.mixing.sensitivity import Sensitivity
from memorywam_runtime.errors import InputError, MissingPartError

__all__ = [
    "WIDE",
    "Assignment",
    "Choice",
    "assigned",
    "cheapest",
    "check_solver",
    "choices_from",
    "front",
]

WIDE = "wide"
"""In the place of a recipe: the product stays in the bundle's type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One product under one recipe, or wide."""

    name: str
    """Its weight, less `.weight`."""
    recipe: str
    cost: float
    """Bytes, or milliseconds of a tick."""
    error: float
    """Root mean square of normalized actions, of this product alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One recipe for each product."""

    chosen: dict[str, str]
    """Weight, less `.weight`, to a recipe; those that stay wide are not in it."""
    cost: float
    """Of all products."""
    error: float
    """Expected of all together, as if errors of products were independent."""


def assigned(choices: Sequence[Choice], budget: float) -> Assignment:
    """Return the assignment with the least sum of squared errors whose cost is in the budget.

    Solved as a mixed-integer linear program (HiGHS by scipy).

    Args:
        choices: Every product at least once, wide among them.
        budget: Of the costs' sum.

    Raises:
        InputError: no assignment is that cheap.
        MissingPartError: scipy is not installed.
    """
    check_solver()
    from scipy.optimize import Bounds, LinearConstraint, milp

    names = sorted({one.name for one in choices})
    row = {name: number for number, name in enumerate(names)}
    one_each = np.zeros((len(names), len(choices)))
    for column, choice in enumerate(choices):
        one_each[row[choice.name], column] = 1.0
    cost = np.array([choice.cost for choice in choices])
    squares = np.array([choice.error**2 for choice in choices])
    least = cheapest(choices)
    if budget < least:
        raise InputError(
            f"found a budget of {budget:.4g}; expected at least {least:.4g}, which the cheapest "
            "recipe of every product takes"
        )
    scale = squares.max() or 1.0
    found = milp(
        # Of equal errors, the cheaper.
        squares / scale + 1e-9 * cost / (cost.max() or 1.0),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(cost[None] / (budget or 1.0), -np.inf, 1 + 1e-12),
        ],
        integrality=np.ones(len(choices)),
        bounds=Bounds(0, 1),
    )
    assert found.x is not None, found.message
    picked = [one for one, is_in in zip(choices, found.x > 0.5, strict=True) if is_in]
    return Assignment(
        chosen={one.name: one.recipe for one in picked if one.recipe != WIDE},
        cost=sum(one.cost for one in picked),
        error=float(np.sqrt(sum(one.error**2 for one in picked))),
    )


def check_solver() -> None:
    """Refuse to start what could not be solved.

    Raises:
        MissingPartError: scipy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingPartError("mixed needs scipy; run: pip install 'memorywam[mixed]'")


def cheapest(choices: Sequence[Choice]) -> float:
    """Return what all products cost at least."""
    least: dict[str, float] = {}
    for one in choices:
        least[one.name] = min(one.cost, least.get(one.name, one.cost))
    return sum(least.values())


def front(choices: Sequence[Choice], count: int = 12) -> list[Assignment]:
    """Return the best assignments from the cheapest there is to all wide, costs ascending.

    Args:
        choices: As `assigned` takes them.
        count: Budgets, evenly spread.
    """
    most = sum(one.cost for one in choices if one.recipe == WIDE)
    budgets = np.linspace(cheapest(choices), max(most, cheapest(choices)), count)
    found = [assigned(choices, float(budget)) for budget in budgets]
    kept: dict[float, Assignment] = {one.cost: one for one in found}
    return [kept[cost] for cost in sorted(kept)]


def choices_from(
    sensitivities: Sequence[Sensitivity],
    costs: Mapping[tuple[str, str], float],
) -> list[Choice]:
    """Return every product's choices, wide among them.

    Args:
        sensitivities: Of products under recipes.
        costs: By weight and recipe, with `wide` for every weight.
    """
    names = dict.fromkeys(one.name for one in sensitivities)
    wide = [Choice(name=name, recipe=WIDE, cost=costs[name, WIDE], error=0.0) for name in names]
    return wide + [
        Choice(name=one.name, recipe=one.recipe, cost=costs[one.name, one.recipe], error=one.error)
        for one in sensitivities
    ]
