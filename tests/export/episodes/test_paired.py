"""Statistics of pairs against values worked out by hand, or published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorywam_export.episodes.paired import pairs_from_outcomes, share_of
from memorywam_runtime.errors import InputError


def pairs(both, only_first, only_second, neither):
    return pairs_from_outcomes(
        [(True, True)] * both
        + [(True, False)] * only_first
        + [(False, True)] * only_second
        + [(False, False)] * neither
    )


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998) 857, table I
        (0, 20, 0.0, 0.1611),  # z^2 / (n + z^2) = 3.8415 / 23.8415
        (10, 10, 0.7225, 1.0),  # n / (n + z^2) = 10 / 13.8415
    ],
)
def test_the_interval_of_a_share(successes, episodes, low, high):
    share = share_of(successes, episodes)
    assert share.low == pytest.approx(low, abs=5e-5)
    assert share.high == pytest.approx(high, abs=5e-5)


def test_the_interval_of_a_difference():
    # 16/32 and 11/32: Wilson .3363 to .6637 and .2041 to .5169; correlation
    # (8 * 13 - 8 * 3 - 16) / sqrt(16 * 16 * 11 * 21) = .2632;
    # -.1563 - sqrt(.1397^2 - 2 * .2632 * .1397 * .1637 + .1637^2), and above alike.
    found = pairs(8, 8, 3, 13)
    assert found.difference == pytest.approx(-5 / 32)
    assert found.low == pytest.approx(-0.3414, abs=1e-4)
    assert found.high == pytest.approx(0.0483, abs=1e-4)
    # All succeed: 1 - .7225 to both sides, and no correlation to be had.
    certain = pairs(10, 0, 0, 0)
    assert certain.low == pytest.approx(-0.2775, abs=1e-4)
    assert certain.high == pytest.approx(0.2775, abs=1e-4)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [(0, 0, 1.0), (6, 0, 2 / 64), (0, 5, 2 / 32), (8, 3, 2 * (1 + 11 + 55 + 165) / 2048)],
)
def test_mcnemars_test(only_first, only_second, p_value):
    assert pairs(5, only_first, only_second, 5).p_value == pytest.approx(p_value)


def test_how_small_a_loss_could_have_been_seen():
    # 10 % differ: (1.9600 sqrt(.1) + .8416 sqrt(.1 - .03^2))^2 / .03^2 = 870 pairs.
    assert pairs(783, 44, 43, 0).seeable == pytest.approx(0.03, abs=1e-4)
    assert pairs(180, 10, 10, 0).seeable == pytest.approx(0.0623, abs=1e-4)
    # None differ: (1.9600 + .8416 sqrt(1 - d))^2 / d = 50 at d = .1497.
    assert pairs(50, 0, 0, 0).seeable == pytest.approx(0.1497, abs=1e-4)
    assert pairs(3, 0, 0, 0).seeable == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_laws(outcomes):
    found = pairs_from_outcomes(outcomes)
    assert found.episodes == len(outcomes)
    assert -1 - 1e-9 <= found.low <= found.difference + 1e-9
    assert found.difference - 1e-9 <= found.high <= 1 + 1e-9
    assert 0 < found.p_value <= 1
    assert 0 < found.seeable <= 1
    turned = pairs_from_outcomes([(second, first) for first, second in outcomes])
    assert turned.difference == -found.difference
    assert turned.low == pytest.approx(-found.high)
    assert turned.p_value == found.p_value


def test_refusals():
    with pytest.raises(InputError, match="found 0 successes in 0 episodes"):
        pairs_from_outcomes([])
    with pytest.raises(InputError, match="no more successes"):
        share_of(3, 2)
