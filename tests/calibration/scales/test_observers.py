"""Ranges from histograms cost what they say, and the best range is found."""

import numpy as np
import pytest

from memorywam_calibration.replay.statistics import TensorStatistics
from memorywam_calibration.scales.observers import OBSERVERS, fitted
from memorywam_runtime.errors import InputError

RNG = np.random.default_rng(0)
# SQNR in dB of int8 over the largest value of 256 x 512 numbers, within what the draw moves it.
KNOWN = {"gauss": (39.4, 1.0), "laplace": (32.2, 1.5), "gelu": (38.9, 1.0)}
DATA = {
    "gauss": RNG.standard_normal((256, 512)),
    "laplace": RNG.laplace(size=(256, 512)),
    "student": RNG.standard_t(3, (256, 512)),
    "gelu": np.maximum(RNG.standard_normal((256, 512)), 0),
    "outlier channels": RNG.standard_normal((256, 512)) * np.where(np.arange(512) < 6, 30, 1),
    "small": 1e-7 * RNG.standard_normal((256, 512)),
    "one value": np.full((4, 4), 0.37),
}


def of(values) -> TensorStatistics:
    found = TensorStatistics(values.shape[1])
    found.add(values)
    return found


def sqnr_db(values, scale) -> float:
    wide = values.astype(np.float32).astype(np.float64)
    held = np.clip(np.rint(wide / scale), -127, 127) * scale
    return float(10 * np.log10((wide**2).sum() / ((wide - held) ** 2).sum()))


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("name", [name for name in DATA if name != "one value"])
def test_a_fit_says_what_it_costs(name, observer):
    fit = fitted(of(DATA[name]), observer)
    size = np.abs(DATA[name])
    assert fit.scale == pytest.approx(fit.clip / 127, rel=1e-6)
    assert fit.scale == np.float32(fit.scale)
    assert fit.sqnr_db == pytest.approx(sqnr_db(DATA[name], fit.scale), abs=0.2)
    assert fit.clipped == pytest.approx((size > fit.clip).mean(), abs=3e-4)
    assert fit.clip <= of(DATA[name]).absmax


@pytest.mark.parametrize("name", KNOWN)
def test_max_costs_what_is_known_of_the_distribution(name):
    expected, tolerance = KNOWN[name]
    assert fitted(of(DATA[name]), "max").sqnr_db == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", DATA)
def test_mse_is_the_best_of_all_ranges(name):
    values, statistics = DATA[name], of(DATA[name])
    best = fitted(statistics, "mse")
    tried = statistics.absmax / 127 * np.linspace(0.02, 1, 300)
    if name == "one value":
        return
    assert sqnr_db(values, best.scale) >= max(sqnr_db(values, scale) for scale in tried) - 0.15
    assert best.sqnr_db >= max(fitted(statistics, one).sqnr_db for one in OBSERVERS) - 1e-9


def test_outliers_are_clipped_where_that_pays():
    found = {name: fitted(of(DATA["student"]), name) for name in OBSERVERS}
    assert found["max"].clipped == 0
    assert found["mse"].clip < found["max"].clip / 1.3
    assert found["mse"].sqnr_db > found["max"].sqnr_db + 1.5


@pytest.mark.parametrize("observer", OBSERVERS)
def test_one_value_and_its_negative_are_held(observer):
    for value in (0.37, -0.37, 2.0**-120, 2.0**23):
        fit = fitted(of(np.full((4, 4), value)), observer)
        assert fit.clip <= np.abs(np.float32(value))
        assert fit.scale > 0


def test_the_fit_hangs_on_no_order():
    values = DATA["laplace"]
    halves = of(values[128:]).merged(of(values[:128]))
    for observer in OBSERVERS:
        assert fitted(halves, observer) == fitted(of(values), observer)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(InputError, match="no value but zero"):
        fitted(of(np.zeros((3, 3))), "mse")
    with pytest.raises(InputError, match="expected one of max, percentile, mse, entropy"):
        fitted(of(np.ones((3, 3))), "median")
