"""The gate tells growth from luck."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorywam_export.episodes.drift import DriftCurve, DriftPoint, checkpoints
from memorywam_export.episodes.drift_gate import (
    GROWTH_PER_DECADE,
    curve_data,
    drift_checks,
    growth_per_decade,
    trends,
)
from memorywam_export.parity.trace_report import Difference
from memorywam_runtime.report import json_from_data


def point(frames, actions, gists=1e-6):
    def of(error):
        return Difference(max_abs=2 * error, rel_rms=error, worst="there")

    return DriftPoint(
        frames=frames,
        latent=of(1e-6),
        frame=of(1e-6),
        actions=of(actions),
        parts={"gists": of(gists)},
        layers={"memory.00.k": of(gists)},
    )


def curve(actions, *, precision="fp32", num_frames=1000, gists=lambda n: 1e-6):
    points = tuple(point(n, actions(n), gists(n)) for n in checkpoints(num_frames))
    return DriftCurve(name="rung", precision=precision, free=points, forced=points)


def verdicts(found):
    return {trend.what: trend.ok for trend in trends(found)}


@given(st.floats(0.2, 30), st.floats(1e-7, 1e-2))
def test_the_growth_of_a_power_law_is_its_factor(factor, start):
    points = [(n, start * factor ** math.log10(n)) for n in (10, 20, 50, 100, 1000)]
    assert growth_per_decade(points) == pytest.approx(factor, rel=1e-6)


def test_growth_does_not_see_one_unlucky_frame_but_sees_infinity():
    flat = [(n, 1e-6) for n in (10, 20, 30, 50, 70, 100)]
    assert growth_per_decade([*flat[:-1], (100, 1e-5)]) == pytest.approx(1)
    assert growth_per_decade([*flat[:-1], (100, math.inf)]) == math.inf
    assert growth_per_decade([(10, 1e-20), (100, 1e-12)], floor=1e-8) == pytest.approx(1)
    assert growth_per_decade([(10, 0.0), (100, 0.0)]) == pytest.approx(1)


def test_a_flat_curve_holds_and_a_growing_one_does_not():
    assert verdicts(curve(lambda n: 1e-6)) == {"gists": True, "actions": True}
    assert verdicts(curve(lambda n: 1e-6, gists=lambda n: 1e-6 * n**0.5)) == {
        "gists": False,
        "actions": True,
    }
    slow = 0.9 * math.log10(GROWTH_PER_DECADE)
    assert verdicts(curve(lambda n: 1e-6 * n**slow, num_frames=100))["actions"]


def test_a_jump_at_the_end_fails_though_the_slope_is_flat():
    found = curve(lambda n: 1e-6 if n < 1000 else 3e-6)
    (_, actions) = trends(found)
    assert actions.growth == pytest.approx(1)
    assert not actions.ok


def test_noise_of_the_type_is_not_judged():
    """Nobody asks whether 1e-12 has become 1e-9."""
    assert verdicts(curve(lambda n: 1e-12 * n, precision="fp64"))["actions"]
    assert not verdicts(curve(lambda n: 1e-8 * n, precision="fp64"))["actions"]
    assert verdicts(curve(lambda n: 1e-6 * n, precision="bf16"))["actions"]


def test_checks_and_figures_say_what_was_found():
    found = curve(lambda n: 1e-6 * n)
    gists, actions = drift_checks([found])
    assert gists.ok
    assert not actions.ok
    assert actions.what == "drift of actions over 1000 frames, relative RMS"
    assert "x10.00 a decade, at most x1.5" in actions.worst
    data = json.loads(json_from_data(curve_data(found)))
    assert data["free"][0]["actions"] == {"rel_rms": 1e-6, "max_abs": 2e-6, "worst": "there"}
    assert data["growth_per_decade"]["actions"] == pytest.approx(10)
