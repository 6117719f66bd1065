"""How far a value inside a graph is from the truth, and how far it may be."""

from dataclasses import dataclass

import numpy as np

from memorywam_export.parity.trace_report import Array

__all__ = ["FLOORS", "TIMES_ROUNDING", "Reading", "reading"]

TIMES_ROUNDING = 16.0
"""An error may be so many times that of torch in the same type: the order of sums differs."""
FLOORS = {"float64": 1e-12, "float32": 1e-6, "float16": 4e-3, "bfloat16": 3e-2}
"""And always this much, relative: some 8 units in the last place of each type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The error of one value; relative to the root mean square of the truth."""

    rms: float
    """Root mean square of the error."""
    peak: float
    """The largest error of an element."""
    rms_limit: float
    """What may be: torch's own error in that type, with the factor and the floor."""
    peak_limit: float
    """The same for the largest error."""

    @property
    def ok(self) -> bool:
        """Does the value hold?"""
        return self.rms <= self.rms_limit and self.peak <= self.peak_limit

    @property
    def excess(self) -> float:
        """The error in units of what it may be: above 1 it is wrong."""
        return max(self.rms / self.rms_limit, self.peak / self.peak_limit)


def reading(found: Array | None, exact: Array, rounded: Array) -> Reading:
    """Return how far a value is from the truth.

    Args:
        found: The suspect's; None if it could not be made at all.
        exact: The truth, in float64, or integers or truth values, which must be equal.
        rounded: What torch has for it in the suspect's type.
    """
    is_float = exact.dtype.kind == "f"
    floor = FLOORS.get(str(rounded.dtype), 0.0) if is_float else 0.0
    noise_rms, noise_peak = _errors(rounded, exact)
    rms, peak = (np.inf, np.inf) if found is None else _errors(found, exact)
    tiny = float(np.finfo(np.float64).tiny)  # so that the excess of an integer is a number
    return Reading(
        rms=rms,
        peak=peak,
        rms_limit=TIMES_ROUNDING * noise_rms + floor + tiny,
        peak_limit=TIMES_ROUNDING * noise_peak + 4 * floor + tiny,
    )


def _errors(found: Array, exact: Array) -> tuple[float, float]:
    """Return the error's root mean square and its peak, over the truth's root mean square."""
    if found.shape != exact.shape:
        return np.inf, np.inf
    if not found.size:
        return 0.0, 0.0
    wide, truth = np.asarray(found, np.float64), np.asarray(exact, np.float64)
    # Rounded to a narrow type, the truth may be infinite as well.
    same = (wide == truth) | (np.isnan(wide) & np.isnan(truth))
    with np.errstate(invalid="ignore"):
        error = np.where(same, 0.0, np.abs(wide - truth))
    error = np.where(np.isfinite(error), error, np.inf)
    finite = np.where(np.isfinite(truth), truth, 0.0)
    scale = max(float(np.sqrt(np.mean(np.square(finite)))), float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.mean(np.square(error)))) / scale, float(error.max()) / scale
