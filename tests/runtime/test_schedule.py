"""Denoising steps equal the reference's and those computed by hand."""

import numpy as np
import pytest

from memorywam_export.reference.schedule import sigmas
from memorywam_runtime.errors import InputError
from memorywam_runtime.schedule import euler_steps


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("num_steps", [1, 2, 4, 10, 50, 1000])
def test_steps_equal_the_reference(num_steps, shift):
    timesteps, deltas = euler_steps(num_steps, shift)
    wanted = sigmas(num_steps, shift).numpy()
    np.testing.assert_array_equal(timesteps, (1000 * wanted[:-1]).astype(np.float32))
    np.testing.assert_array_equal(deltas, np.diff(wanted).astype(np.float32))
    assert timesteps.dtype == deltas.dtype == np.float32


def test_without_a_shift_steps_are_even():
    timesteps, deltas = euler_steps(4, 1.0)
    assert timesteps.tolist() == [1000.0, 750.0, 500.0, 250.0]
    assert deltas.tolist() == [-0.25] * 4


def test_a_shift_by_5_by_hand():
    # sigma = 5 u / (1 + 4 u) at u = 1, 3/4, 1/2, 1/4, 0: 1, 15/16, 5/6, 5/8, 0.
    timesteps, deltas = euler_steps(4, 5.0)
    wanted = np.array([1, 15 / 16, 5 / 6, 5 / 8, 0])
    np.testing.assert_allclose(timesteps, 1000 * wanted[:-1], rtol=1e-7)
    np.testing.assert_allclose(deltas, np.diff(wanted), rtol=1e-7)


@pytest.mark.parametrize("shift", [1.0, 5.0])
@pytest.mark.parametrize("num_steps", [1, 10, 50, 1000])
def test_steps_lead_from_noise_to_actions(num_steps, shift):
    """FastWAM's bfloat16 steps sum to -1.000977; these are rounded to float32 once each."""
    timesteps, deltas = euler_steps(num_steps, shift)
    assert timesteps[0] == 1000
    assert (np.diff(timesteps) < 0).all()
    assert (deltas < 0).all()
    assert abs(deltas.astype(np.float64).sum() + 1) <= num_steps * 2**-25


@pytest.mark.parametrize("num_steps", [0, -1])
def test_at_least_one_step(num_steps):
    with pytest.raises(InputError, match=f"found {num_steps} denoising steps; expected at least 1"):
        euler_steps(num_steps, 1.0)
