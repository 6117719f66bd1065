"""Arguments of `run --async` that mean nothing are refused before anything is opened."""

import pytest

from memorywam_robot.live_cli import _latency
from memorywam_runtime.errors import InputError


def test_two_numbers_are_milliseconds():
    assert _latency("30,60.5") == (30.0, 60.5)


@pytest.mark.parametrize("text", ["", "30", "30,60,90", "a,b", "nan,1", "1,inf", "0,1", "1,-1"])
def test_what_is_no_latency_is_refused(text):
    with pytest.raises(InputError, match=r"found --latency .*; expected two numbers above 0"):
        _latency(text)
