"""Flow-matching steps: from noise to actions along a shifted straight path."""

import torch

__all__ = ["NUM_TRAIN_TIMESTEPS", "sigmas", "time_sinusoid"]

NUM_TRAIN_TIMESTEPS = 1000


def sigmas(num_steps: int, shift: float) -> torch.Tensor:
    """Return noise shares [num_steps + 1] float64 from 1 down to 0.

    phi(u) = s u / (1 + (s - 1) u) at u = 1 - i / S (FastWAM, `scheduler_continuous.py`).
    The timestep of step i is 1000 sigma_i, its Euler step is sigma_{i+1} - sigma_i.
    """
    u = 1 - torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    return shift * u / (1 + (shift - 1) * u)


def time_sinusoid(timestep: torch.Tensor, dim: int) -> torch.Tensor:
    """Return cosines, then sines, of timestep [...] at dim / 2 frequencies: [..., dim].

    Wan computes this in float64; pass a float64 timestep to do the same. The graphs pass float32,
    because TensorRT has no float64; the difference is below 1e-4 of a unit amplitude.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=timestep.dtype, device=timestep.device) / half
    angles = timestep[..., None] * torch.pow(10000.0, -exponent)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
