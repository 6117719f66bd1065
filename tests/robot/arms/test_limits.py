"""Commands stay within every limit whatever is asked for, and stops end at rest."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.arms.limits import CommandLimiter, JointLimits, joint_limits_from_maker
from memorywam_runtime.errors import InputError

NUM = 3
PERIOD_NS = 20_000_000
PERIOD_S = PERIOD_NS / 1e9


def limits(**changes):
    made = JointLimits(
        lower=np.array([-1.0, -2.0, 0.0]),
        upper=np.array([1.0, 3.0, 1.0]),
        velocity=np.array([1.0, 2.0, 5.0]),
        acceleration=np.array([5.0, 3.0, 200.0]),
        step=np.array([0.1, 0.03, np.inf]),
        is_angle=np.array([True, True, False]),
    )
    return replace(made, **changes)


def started(made=None, at=(0.0, 0.0, 0.5), first=None):
    limiter = CommandLimiter(made or limits(), PERIOD_NS)
    limiter.start(np.array(at), np.array(at if first is None else first))
    return limiter


def driven(limiter, actions):
    """Commands [1 + num_actions, num_joints], the start included."""
    path = [limiter.command.copy()]
    for action in actions:
        out = np.empty(len(path[0]))
        limiter.limited(np.asarray(action), out)
        path.append(out)
    return np.array(path)


def braked(limiter):
    """Commands of a stop, where it began included."""
    path = [limiter.command.copy()]
    for _ in range(10_000):
        out = np.empty(len(path[0]))
        is_at_rest = limiter.brake(out)
        path.append(out)
        if is_at_rest:
            return np.array(path)
    raise AssertionError("never at rest")


def check_path(path, made, velocity=None):
    """No command of a path from rest, or from a velocity, may break a limit."""
    slack = 1e-9
    assert (path >= made.lower).all()
    assert (path <= made.upper).all()
    steps = np.diff(path, axis=0)
    assert (np.abs(steps) <= made.step + slack).all()
    velocities = steps / PERIOD_S
    assert (np.abs(velocities) <= made.velocity + slack).all()
    first = np.zeros(path.shape[1]) if velocity is None else velocity
    changes = np.diff(np.vstack([first, velocities]), axis=0)
    assert (np.abs(changes) <= made.acceleration * PERIOD_S + slack / PERIOD_S).all()


actions_of = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 60), st.just(NUM)),
    elements=st.floats(-4, 4) | st.sampled_from([-1.0, 0.0, 1.0, 1e9, -1e9]),
)


@st.composite
def any_limits(draw):
    def each(low, high):
        return np.array([draw(st.floats(low, high)) for _ in range(NUM)])

    lower = each(-3, 0.4)
    return limits(
        lower=lower,
        upper=lower + 0.6 + each(0, 5),
        velocity=each(0.05, 8),
        acceleration=each(0.2, 400),
        step=each(0.002, 1),
    )


def middle(made):
    return (made.lower + made.upper) / 2


@settings(max_examples=60, deadline=None)
@given(any_limits(), actions_of, st.booleans())
def test_no_command_breaks_a_limit_and_a_stop_ends_at_rest(made, actions, turned):
    limiter = started(made, middle(made))
    held = np.repeat(actions, 8, axis=0) if turned else actions  # long enough to reach the ends
    path = driven(limiter, held)
    check_path(path, made)
    velocity = limiter.velocity.copy()
    num_expected = np.ceil(np.abs(velocity) / limiter._change).max()
    stop = braked(limiter)
    check_path(stop, made, velocity)
    assert not limiter.velocity.any()
    speeds = np.abs(np.diff(stop, axis=0)) / PERIOD_S
    assert (np.diff(speeds, axis=0) <= 1e-9).all()
    ways = np.diff(stop, axis=0) * np.sign(velocity)
    assert (ways >= -1e-12).all()  # never back
    # One command less where the last bit of rounding is left to lose, or one to hear of rest.
    assert abs(len(stop) - 1 - num_expected) <= 1
    after = np.empty(NUM)
    assert limiter.brake(after)
    np.testing.assert_array_equal(after, stop[-1])


@settings(max_examples=25, deadline=None)
@given(any_limits(), st.lists(st.floats(0, 1), min_size=NUM, max_size=NUM))
def test_a_target_that_stands_is_reached_and_never_passed(made, share):
    limiter = started(made, middle(made))
    target = made.lower + (made.upper - made.lower) * np.array(share)
    way = target - limiter.command
    path = driven(limiter, [target] * 40)
    left = (target - path) * np.sign(way)
    assert (left >= -1e-9).all()
    assert (np.diff(left, axis=0) <= 1e-9).all()
    # As long as the slowest joint takes to speed up, run and slow down, at the very most.
    fastest = np.minimum(made.velocity, made.step / PERIOD_S)
    longest_s = (np.abs(way) / fastest + 2 * fastest / made.acceleration).max()
    longest_s = min(longest_s, 8.0) + 1.0
    path = driven(limiter, [target] * int(longest_s / PERIOD_S))
    reach = np.abs(way) / fastest + 2 * fastest / made.acceleration < 8
    np.testing.assert_allclose(path[-1][reach], target[reach], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float64, (30, NUM), elements=st.floats(-1, 1)))
def test_what_is_within_the_limits_passes_unchanged(draws):
    made = limits(lower=np.full(NUM, -9.0), upper=np.full(NUM, 9.0))
    fastest = 0.9 * np.minimum(made.velocity, made.step / PERIOD_S)
    velocity, actions, at = np.zeros(NUM), [], np.array([0.0, 0.0, 0.5])
    for draw in draws:
        velocity = velocity + draw * 0.9 * made.acceleration * PERIOD_S
        velocity = np.clip(velocity, -fastest, fastest)
        at = at + velocity * PERIOD_S
        actions.append(at)
    limiter = started(made)
    path = driven(limiter, actions)
    np.testing.assert_allclose(path[1:], actions, atol=1e-12)
    assert limiter.num_limited == 0
    for name in limiter.counts.__slots__:
        assert not getattr(limiter.counts, name).any()


@pytest.mark.parametrize(
    ("limit", "joint", "changes", "action"),
    [
        ("position", 1, {"upper": np.array([1.0, 0.001, 1.0])}, 0.5),
        ("velocity", 0, {"velocity": np.array([0.01, 2.0, 5.0])}, 0.01),
        ("step", 1, {"step": np.array([1.0, 1e-4, 1.0])}, 0.001),
        ("acceleration", 0, {"acceleration": np.array([0.01, 3.0, 200.0])}, 0.001),
    ],
)
def test_each_limit_alone_changes_the_command_and_is_counted_for_its_joint(
    limit, joint, changes, action
):
    wanted = np.array([0.0, 0.0, 0.5])
    wanted[joint] = action
    loose = limits(acceleration=np.full(NUM, 1e4), velocity=np.full(NUM, 1e3), step=np.ones(NUM))
    free = started(loose)
    np.testing.assert_allclose(driven(free, [wanted])[1], wanted)
    bound = started(replace(loose, **changes))
    assert abs(driven(bound, [wanted])[1][joint]) < action
    for name in bound.counts.__slots__:
        expected = [int(name == limit and each == joint) for each in range(NUM)]
        assert getattr(bound.counts, name).tolist() == expected, name
    assert bound.num_limited == 1


def test_the_reference_is_the_command_before_not_a_joint_that_lags():
    limiter = started()
    path = driven(limiter, [[0.5, 0.0, 0.5]] * 60)
    assert path[-1][0] == pytest.approx(0.5)


def test_a_call_allocates_no_array():
    many = 20_000
    made = JointLimits(
        lower=np.full(many, -1.0), upper=np.full(many, 1.0), velocity=np.ones(many),
        acceleration=np.ones(many), step=np.ones(many), is_angle=np.ones(many, np.bool_),
    )  # fmt: skip
    limiter = CommandLimiter(made, PERIOD_NS)
    limiter.start(np.zeros(many), np.full(many, 0.1))
    action, out = np.full(many, 0.1), np.zeros(many)
    limiter.limited(action, out)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(3):
            assert limiter.limited(action, out)
            limiter.brake(out)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One array of bools alone would be 20 000 bytes; what is left are Python's own small objects.
    assert peak - before < many // 2
    assert after - before < 2000


@pytest.mark.parametrize(
    ("apart", "is_approaching"), [(0.0, False), (0.019, False), (0.021, True), (0.199, True)]
)
def test_the_first_action_is_approached_slowly_unless_it_is_here(apart, is_approaching):
    first = np.array([apart, 0.0, 1.0])  # the gripper may be anywhere
    limiter = started(first=first)
    assert limiter.is_approaching == is_approaching
    path = [limiter.command.copy()]
    while limiter.is_approaching:
        out = np.empty(NUM)
        limiter.limited(first, out)
        path.append(out)
        assert len(path) < 200
    if is_approaching:
        speeds = np.abs(np.diff([each[0] for each in path])) / PERIOD_S
        assert speeds.max() == pytest.approx(LimitRules().approach_rad_per_s, rel=0.55)
        assert speeds.max() <= LimitRules().approach_rad_per_s + 1e-9
        assert path[-1][0] >= apart - LimitRules().aligned_rad
    # From here on it may go as fast as the limits say.
    fast = driven(limiter, [[1.0, 0.0, 0.5]] * 30)[:, 0]
    assert max(b - a for a, b in pairwise(fast)) > 2 * LimitRules().approach_rad_per_s * PERIOD_S


@pytest.mark.parametrize(
    ("measured", "first", "said"),
    [
        ([0.0, 0.0, 0.5], [0.0, -0.21, 0.5], "joint 1 is 0.210 rad from the first action"),
        ([0.0, 3.03, 0.5], [0.0, 3.0, 0.5], "joint 1 is at 3.0300; expected -2.0000 to 3.0000"),
        ([0.0, np.nan, 0.5], [0.0, 0.0, 0.5], "measured: found"),
        ([0.0, 0.0, 0.5], [0.0, 0.0], "first action: found"),
    ],
)
def test_a_start_that_is_amiss_is_refused(measured, first, said):
    limiter = CommandLimiter(limits(), PERIOD_NS)
    with pytest.raises(InputError, match=said):
        limiter.start(np.array(measured), np.array(first))
    with pytest.raises(InputError, match="expected start"):
        limiter.limited(np.zeros(NUM), np.zeros(NUM))
    with pytest.raises(InputError, match="expected start"):
        limiter.brake(np.zeros(NUM))


def test_a_joint_a_little_beyond_its_limit_starts_there_and_only_comes_back():
    limiter = started(at=(0.0, 3.01, 0.5), first=(0.0, 3.0, 0.5))
    path = driven(limiter, [[0.0, 9.0, 0.5], [0.0, 2.9, 0.5], [0.0, 2.9, 0.5]])[:, 1]
    assert path[0] == path[1] == 3.01
    assert path[1] > path[2] > path[3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_action_that_is_not_finite_changes_nothing(bad):
    limiter = started()
    driven(limiter, [[0.1, 0.1, 0.6]] * 3)
    command, velocity, out = limiter.command.copy(), limiter.velocity.copy(), np.full(NUM, 7.0)
    with pytest.raises(InputError, match=r"joints \[1\] are not finite"):
        limiter.limited(np.array([0.0, bad, 0.0]), out)
    with pytest.raises(InputError, match=r"found shape \[2\]"):
        limiter.limited(np.zeros(2), out)
    np.testing.assert_array_equal(limiter.command, command)
    np.testing.assert_array_equal(limiter.velocity, velocity)
    assert (out == 7).all()


def test_limits_from_a_makers_sheet_use_a_share_of_it():
    made = joint_limits_from_maker(
        [-1, 0], [1, 1], [2, 3], [10, 20], units=("rad", "fraction"), rules=LimitRules()
    )
    assert made.velocity.tolist() == [2 * LimitRules().maker_share, 3 * LimitRules().maker_share]
    assert made.acceleration[0] == 10 * LimitRules().maker_share
    assert made.step.tolist() == [LimitRules().seam_refused_rad, np.inf]
    assert made.is_angle.tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lower": np.array([2.0, 0.0, 0.0])}, r"joints \[0\]: lower and upper"),
        ({"velocity": np.array([1.0, np.inf, 1.0])}, r"joints \[1\]: velocity"),
        ({"acceleration": np.array([1.0, 1.0, 0.0])}, r"joints \[2\]: acceleration"),
        ({"step": np.array([1.0, np.nan, 1.0])}, r"joints \[1\]: step"),
        ({"step": np.ones(2)}, "one number a joint"),
    ],
)
def test_limits_that_are_none_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        limits(**changes)


def test_rules_that_are_none_are_refused():
    with pytest.raises(InputError, match="aligned_rad is nan"):
        LimitRules(aligned_rad=float("nan"))
    with pytest.raises(InputError, match=r"seam_warned_rad is 0\.3"):
        LimitRules(seam_warned_rad=0.3)
    with pytest.raises(InputError, match=r"maker_share is 1\.5"):
        LimitRules(maker_share=1.5)
    assert LimitRules(max_dropped_chunks=0).max_dropped_chunks == 0
    with pytest.raises(InputError, match="a period of 0 ns"):
        CommandLimiter(limits(), 0)


def test_after_a_stop_the_place_of_rest_is_where_it_goes_on_from():
    limiter = started()
    driven(limiter, [[0.9, 0.0, 0.5]] * 10)
    rest = braked(limiter)[-1]
    np.testing.assert_array_equal(driven(limiter, [rest])[1], rest)
