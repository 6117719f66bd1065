"""What a person is told to do where coverage is missing or checks fail."""

from pathlib import Path

import pytest

from memorywam_calibration.calibration_outcome import outcome_of_delivery
from memorywam_calibration.delivery import Delivery
from memorywam_calibration.judgement.judgement_checks import (
    bytes_check,
    is_waived_by_option,
    tick_check,
)
from memorywam_calibration.judgement.narrow_bytes import NarrowBytes
from memorywam_calibration.judgement.tick_ratio import TickRatio
from memorywam_export.parity.parity_report import Check

TOO_WIDE = bytes_check(
    NarrowBytes(wide=400, narrow=390, by_type={"int8": 390}, num_quantized=100, quantized=120),
    "int8",
    forced=False,
)
SLOW = tick_check(
    TickRatio(frames=60, num_threads=1, rounds=9, wide_ms=2.0, narrow_ms=3.0, ratio=1.5,
              at_least=1.4, noise=1.0),
    "int8",
    forced=False,
)  # fmt: skip
WRONG = Check(rung="int8", what="chunks", max_abs=0.5, tolerance=0.1, worst="", ok=False)
FINE = Check(rung="int8", what="drift", max_abs=0.1, tolerance=0.5, worst="", ok=True)


def note_of(*checks):
    found = Delivery(calibration=None, checks=[*checks], data={})
    return outcome_of_delivery(Path("bundle"), Path("narrow"), found).note


@pytest.mark.parametrize("check", [TOO_WIDE, SLOW], ids=["bytes", "tick"])
def test_size_and_speed_can_be_waived(check):
    assert not check.ok
    assert is_waived_by_option(check)
    told = note_of(check, FINE)
    assert told.startswith(f"1 of 2 checks failed: {check.what}. Actions hold")
    assert "--allow-slower --overwrite" in told
    assert "narrow/reports/parity.html" in told


def test_what_the_actions_lose_cannot():
    told = note_of(WRONG, TOO_WIDE)
    assert "--allow-slower" not in told
    assert "Do not ship it" in told


def test_a_slow_tick_is_judged_by_what_is_sure():
    """The figure beside the limit is the one that decides."""
    assert (SLOW.max_abs, SLOW.tolerance) == (1.4, 1.0)


def test_a_bundle_that_holds_is_named():
    assert note_of(FINE) == "the bundle: narrow, its page: narrow/reports/parity.html"
