"""How far two rungs of the ladder may be apart, by precision, with the reason for each figure."""

from dataclasses import dataclass

__all__ = ["NOISE_FACTOR", "SPREAD_SHARE", "TOLERANCES", "Tolerance"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest absolute error, and why that much."""

    max_abs: float
    reason: str


TOLERANCES: dict[str, Tolerance] = {
    "fp64": Tolerance(1e-6, "a session gives actions as float32, whose last digit is 6e-8 of 1"),
    "fp32": Tolerance(1e-4, "24 bits: the order of sums differs between runtimes"),
    "fp16": Tolerance(
        5e-2, "11 bits, in the weights too: keys and values up to 3.6 were off by 2e-2 (tiny)"
    ),
    "bf16": Tolerance(
        4e-1, "8 bits, eight times coarser than fp16: feature caches were off by 0.29 (tiny)"
    ),
}
"""By precision; for latents, keys, values, feature caches and normalized actions alike."""

NOISE_FACTOR = 3.0
"""How many times the noise of its type a rung's error may be, by root mean square.

The noise is what the reference itself is off by when it runs in that type. A graph rounds at other
places and sums in another order: two such errors of equal size differ by no more than chance."""

SPREAD_SHARE = 0.5
"""How much of what another seed changes the error of actions may be: beyond, the exported policy
cannot be told from the same policy with other noise."""
