"""When a step is, as the model is told: sinusoids of a timestep from 0 to 1000."""

import numpy as np
import pytest
import torch

from memorywam_export.reference.schedule import sigmas, time_sinusoid

TIMESTEPS = torch.cat(
    (
        torch.arange(1001.0),
        1000 * torch.rand(5000, generator=torch.Generator().manual_seed(0)),
        *(1000 * sigmas(steps, shift).float() for steps in (3, 7, 10, 50) for shift in (1.0, 5.0)),
    )
)


@pytest.mark.parametrize("dim", [8, 256])
def test_float64_is_the_formula(dim):
    half = dim // 2
    timesteps = TIMESTEPS.double()
    angles = timesteps.numpy()[:, None] * 10000.0 ** (-np.arange(half) / half)
    expected = np.concatenate((np.cos(angles), np.sin(angles)), -1)
    np.testing.assert_allclose(time_sinusoid(timesteps, dim), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [8, 256])
def test_float32_is_float64_but_for_its_last_digits(dim):
    """Measured: 4e-7 at most, 5e-8 by root mean square; plainly computed, 6e-5 and 3e-6."""
    found = time_sinusoid(TIMESTEPS, dim)
    assert found.dtype == torch.float32
    error = (found.double() - time_sinusoid(TIMESTEPS.double(), dim)).abs()
    assert error.max() < 6e-7
    assert error.square().mean().sqrt() < 1e-7
    clean = time_sinusoid(torch.zeros(1), dim)[0]
    assert clean.tolist() == [1.0] * (dim // 2) + [0.0] * (dim // 2)
