"""The best assignment is found, not a good one; and what cannot be afforded is said."""

import itertools

import numpy as np
import pytest

from memorywam_calibration.mixing.assignment import WIDE, Choice, assigned, choices_from, front
from memorywam_calibration.mixing.sensitivity import Sensitivity
from memorywam_runtime.errors import InputError

pytest.importorskip("scipy", reason="needs the extra memorywam[mixed]")

RECIPES = {WIDE: 4.0, "int8": 1.0, "int4-weight": 0.5}


def choices(num_products=6, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num_products):
        size, error = rng.integers(1, 20), rng.random()
        for recipe, cost in RECIPES.items():
            worse = {WIDE: 0.0, "int8": 1.0, "int4-weight": 6.0}[recipe]
            found.append(
                Choice(name=f"p{number}", recipe=recipe, cost=cost * size, error=worse * error)
            )
    return found


def best_by_trying(offered, budget):
    """The least error of all combinations."""
    groups = [list(group) for _, group in itertools.groupby(offered, key=lambda one: one.name)]
    return min(
        sum(one.error**2 for one in picked) ** 0.5
        for picked in itertools.product(*groups)
        if sum(one.cost for one in picked) <= budget + 1e-9
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
def test_no_combination_is_better(seed, share):
    offered = choices(seed=seed)
    budget = share * sum(one.cost for one in offered if one.recipe == WIDE)
    found = assigned(offered, budget)
    assert found.cost <= budget + 1e-9
    assert found.error == pytest.approx(best_by_trying(offered, budget), abs=1e-9)


def test_errors_are_independent_so_that_their_squares_add():
    offered = [
        Choice(name="a", recipe=WIDE, cost=4.0, error=0.0),
        Choice(name="a", recipe="int8", cost=2.0, error=3.0),
        Choice(name="b", recipe="int8", cost=2.0, error=3.0),
        Choice(name="b", recipe="int4-weight", cost=0.0, error=5.0),
    ]
    assert assigned(offered, 4.0).chosen == {"a": "int8", "b": "int8"}


def test_the_front_goes_from_the_cheapest_to_all_wide():
    found = front(choices())
    costs, errors = [one.cost for one in found], [one.error for one in found]
    assert costs == sorted(costs)
    assert errors == sorted(errors, reverse=True)
    assert set(found[0].chosen.values()) == {"int4-weight"}
    assert found[-1].chosen == {}
    assert found[-1].error == 0


def test_a_budget_below_the_cheapest_is_refused():
    with pytest.raises(InputError, match="expected at least"):
        assigned(choices(), 1e-3)


def test_every_product_may_stay_wide():
    sensitivities = [Sensitivity(name="a", recipe="int8", error=0.5)]
    offered = choices_from(sensitivities, {("a", WIDE): 4.0, ("a", "int8"): 1.0})
    assert {(one.recipe, one.cost, one.error) for one in offered} == {
        (WIDE, 4.0, 0.0),
        ("int8", 1.0, 0.5),
    }
