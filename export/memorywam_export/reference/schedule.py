"""Flow-matching steps: from noise to actions along a shifted straight path."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

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
    because TensorRT has no float64; it is computed in float32 then, so that 4e-7 of a unit
    amplitude is lost at most. Plain float32 would lose 6e-5, as 1000 radians are rounded so far:
    more than all else that float32 does to the actions of a wide model.
    """
    half = dim // 2
    frequencies = 10000.0 ** (-np.arange(half) / half)
    if timestep.dtype == torch.float32:
        angles = 2 * math.pi * _turns(timestep[..., None], frequencies / (2 * math.pi))
    else:
        angles = timestep[..., None] * _constant(frequencies, timestep)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _turns(timestep: torch.Tensor, rates: NDArray[np.float64]) -> torch.Tensor:
    """Return timestep [..., 1] (0 .. 1000) times rates [n] without whole turns, in float32.

    Cut into parts of 12 bits, whose products float32 holds exactly: only what is left after whole
    turns are taken off is ever rounded.
    """
    first = _in_12_bits(rates)
    second = _in_12_bits(rates - first)
    third = rates - first - second
    quarters = torch.round(4 * timestep) / 4
    whole = quarters * _constant(first, timestep)
    rest = quarters * _constant(second, timestep) + quarters * _constant(third, timestep)
    rest = rest + (timestep - quarters) * _constant(rates, timestep)
    return (whole - torch.round(whole)) + rest


def _in_12_bits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values rounded to the first 12 bits that are not 0."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(fraction * 4096) / 4096, exponent)


def _constant(values: NDArray[np.float64], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values.tolist(), dtype=like.dtype, device=like.device)
