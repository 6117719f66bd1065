"""The search finds the first wrong value of any graph, in few runs; readings adapt to rounding."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from memorywam_export.bisect.bisect_reading import reading
from memorywam_export.bisect.bisect_search import Lineage, first_fault


class Counted:
    """A probe that knows the wrong values and counts its runs."""

    def __init__(self, wrong):
        self.wrong = set(wrong)
        self.runs = []

    def __call__(self, names):
        self.runs.append(list(names))
        return {name: name not in self.wrong for name in names}


def below(parents, faults):
    """Return the faults and all that is made of them."""
    wrong = set(faults)
    for name, above in parents.items():
        if wrong & set(above):
            wrong.add(name)
    return wrong


def chain(length):
    return {f"v{i}": [f"v{i - 1}"] if i else [] for i in range(length)}


@st.composite
def graphs(draw):
    size = draw(st.integers(2, 40))
    parents = {}
    for index in range(size):
        count = draw(st.integers(0, min(index, 3)))
        above = draw(st.lists(st.integers(0, max(index - 1, 0)), min_size=count, max_size=count))
        parents[f"v{index}"] = [f"v{i}" for i in set(above) if i < index]
    return parents


@settings(max_examples=200, deadline=None)
@given(parents=graphs(), data=st.data())
def test_the_first_fault_of_any_graph_is_found(parents, data):
    names = list(parents)
    faults = data.draw(st.sets(st.sampled_from(names), min_size=1, max_size=3))
    wrong = below(parents, faults)
    known = data.draw(st.sampled_from(sorted(wrong)))
    probe = Counted(wrong)
    found = first_fault(Lineage(parents), [known], probe, width=3, num_values=8)
    assert not wrong & set(parents[found.value])
    assert set(found.good) == set(parents[found.value])
    # No other fault stands before it in the graph's order.
    assert found.value == min(wrong, key=names.index)
    assert found.still_bad
    assert found.num_probes == len(probe.runs)


def test_an_error_that_dies_out_does_not_mislead():
    """v3 looks right though it is made of what is wrong: v1 is found all the same."""
    parents = chain(8)
    probe = Counted({"v1", "v2", "v5", "v6", "v7"})
    found = first_fault(Lineage(parents), ["v7"], probe, width=2, num_values=4)
    assert found.value == "v1"


def test_a_thousand_values_take_a_handful_of_runs():
    parents = chain(1000)
    probe = Counted(below(parents, ["v617"]))
    found = first_fault(Lineage(parents), ["v999"], probe, width=6, num_values=1000)
    assert (found.value, found.good) == ("v617", ("v616",))
    assert found.num_probes <= 7
    assert max(len(run) for run in probe.runs[:-1]) <= 6


def test_what_is_right_when_looked_at_is_said_to_be():
    found = first_fault(Lineage(chain(5)), ["v4"], Counted(()), width=2, num_values=8)
    assert (found.value, found.still_bad) == ("v4", False)


def test_of_values_said_to_be_wrong_those_that_are_right_are_passed_over():
    parents = {"a": [], "b": ["a"], "c": ["a"], "d": ["c"], "e": ["d"]}
    probe = Counted({"d", "e"})
    found = first_fault(Lineage(parents), ["b", "c", "e"], probe, width=2, num_values=8)
    assert (found.value, found.good, found.still_bad) == ("d", ("c",), True)


def test_an_error_is_judged_by_what_rounding_does_there():
    exact = np.linspace(-1, 1, 1000)
    rounded = exact.astype(np.float32)
    assert reading(rounded, exact, rounded).ok
    assert not reading(rounded + np.float32(1e-4), exact, rounded).ok
    noisy = rounded + np.float32(1e-4)
    assert reading(rounded - np.float32(1e-4), exact, noisy).ok
    one = rounded.copy()
    one[7] += 1e-3  # lost in the mean, seen as the peak
    assert not reading(one, exact, rounded).ok


def test_integers_are_equal_or_wrong_and_what_is_missing_is_wrong():
    rows = np.arange(4)
    assert reading(rows, rows, rows).ok
    assert not reading(rows + 1, rows, rows).ok
    assert reading(None, rows, rows).excess == np.inf
    assert reading(rows[:2], rows, rows).rms == np.inf
    values = np.array([1.0, np.nan, np.inf])
    assert reading(values, values, values).ok
    assert not reading(np.array([1.0, 2.0, np.inf]), values, values).ok
