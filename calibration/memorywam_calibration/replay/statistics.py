"""Statistics of one tensor that merge exactly: any partition, any order, the same bytes.

Everything kept is a maximum or a sum of integers. A value is cut to a multiple of 2^-40 and
written as four digits of 16 bits; sums of digits, and of products of digits, are integers, which
add up the same in any order, as sums of floats do not.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError

__all__ = ["LIMIT", "NUM_BINS", "GramSums", "TensorStatistics", "bin_edges"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LIMIT = 2.0**24
"""Absolute values from here on are refused: float16 ends at 65504, and no sound layer gets here."""
_GRID_BITS = 40
_DIGIT_BITS = 16
_NUM_DIGITS = 4
_LEAST_EXPONENT, _END_EXPONENT = -_GRID_BITS, 24
_MANTISSA_BITS = 7
_DROPPED_BITS = 23 - _MANTISSA_BITS
_FIRST_KEY = (127 + _LEAST_EXPONENT) << _MANTISSA_BITS
NUM_BINS = ((_END_EXPONENT - _LEAST_EXPONENT) << _MANTISSA_BITS) + 1
"""Bin 0 is below 2^-40; then 128 bins an octave up to 2^24: the bfloat16 numbers."""
_MAX_ROWS = 1 << 28
"""Digits of more rows could pass 2^63."""
_MAX_CHANNELS = 1 << 20
_EXACT_ROWS = 1 << 20
"""Rows whose products of digits a float64 matrix product sums without rounding (2^52)."""


class TensorStatistics:
    """What is known of one tensor [rows, channels], however many calls it came from."""

    def __init__(self, num_channels: int) -> None:
        """Start empty.

        Args:
            num_channels: Of the last axis.
        """
        self.num_channels = num_channels
        self.num_rows = 0
        self.channel_absmax = np.zeros(num_channels, np.float32)
        self.histogram: Integers = np.zeros(NUM_BINS, np.int64)
        """Of absolute values [NUM_BINS]; see `bin_edges`."""
        self._sums: Integers = np.zeros((_NUM_DIGITS, num_channels), np.int64)
        self._squares: Integers = np.zeros((2 * _NUM_DIGITS - 1, num_channels), np.int64)
        self.peaks: dict[str, float] = {}
        """Largest absolute value by group."""

    @property
    def absmax(self) -> float:
        """Largest absolute value; 0 of nothing."""
        return float(self.channel_absmax.max(initial=0.0))

    @property
    def num_values(self) -> int:
        """Rows times channels."""
        return self.num_rows * self.num_channels

    def add(self, values: NDArray[np.floating]) -> None:
        """Count rows.

        Args:
            values: [rows, channels]; told apart down to float32.

        Raises:
            InputError: another number of channels, or a value that is not finite or is 2^24 or
                more; nothing is changed.
        """
        found = self._checked(values)
        if not len(found):
            return
        size = np.abs(found)
        self.channel_absmax = np.maximum(self.channel_absmax, size.max(axis=0))
        self.histogram += _binned(size)
        digits = _digits(found)
        self._sums += digits.sum(axis=1)
        for first in range(_NUM_DIGITS):
            for second in range(first, _NUM_DIGITS):
                products = np.einsum("rc,rc->c", digits[first], digits[second])
                self._squares[first + second] += products if first == second else 2 * products
        self.num_rows += len(found)

    def note_peak(self, group: str, absmax: float) -> None:
        """Count the largest absolute value of a group: a denoising step, a class of tokens."""
        self.peaks[group] = max(self.peaks.get(group, 0.0), absmax)

    def merged(self, other: "TensorStatistics") -> "TensorStatistics":
        """Return the statistics of both together.

        Raises:
            InputError: another number of channels.
        """
        if other.num_channels != self.num_channels:
            raise InputError(
                f"found statistics of {other.num_channels} channels; expected {self.num_channels}: "
                "they are of another tensor"
            )
        both = TensorStatistics(self.num_channels)
        both.num_rows = _checked_rows(self.num_rows + other.num_rows)
        both.channel_absmax = np.maximum(self.channel_absmax, other.channel_absmax)
        both.histogram = self.histogram + other.histogram
        both._sums = self._sums + other._sums  # noqa: SLF001 - of the same class
        both._squares = self._squares + other._squares  # noqa: SLF001
        both.peaks = {
            group: max(self.peaks.get(group, 0.0), other.peaks.get(group, 0.0))
            for group in sorted({*self.peaks, *other.peaks})
        }
        return both

    def channel_mean(self) -> Floats:
        """Return the mean of every channel [channels]; 0 of nothing."""
        return _number(self._sums, _GRID_BITS) / max(self.num_rows, 1)

    def channel_mean_square(self) -> Floats:
        """Return the mean of the squares of every channel [channels]; 0 of nothing."""
        return _number(self._squares, 2 * _GRID_BITS) / max(self.num_rows, 1)

    def to_bytes(self) -> bytes:
        """Return all of it; the same statistics, the same bytes on every machine."""
        head = {"channels": self.num_channels, "rows": self.num_rows, "peaks": self.peaks}
        parts = [
            array.astype(array.dtype.newbyteorder("<")).tobytes()
            for array in (self.channel_absmax, self.histogram, self._sums, self._squares)
        ]
        return b"".join([msgspec.json.encode(head, order="sorted"), b"\n", *parts])

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return all that is kept, by attribute: what JSON can hold, and arrays."""
        kept = vars(self)
        arrays = {name: one for name, one in kept.items() if isinstance(one, np.ndarray)}
        return {name: one for name, one in kept.items() if name not in arrays}, arrays

    @classmethod
    def from_state(
        cls, plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> "TensorStatistics":
        """Take back what `state` returned.

        Raises:
            InputError: another set of names, or an array of another shape or type.
        """
        num_channels = plain.get("num_channels")
        if type(num_channels) is not int or not 0 < num_channels <= _MAX_CHANNELS:
            raise InputError(
                f"found statistics of {num_channels!r} channels; expected 1 to {_MAX_CHANNELS}"
            )
        found = cls(num_channels)
        known_plain, known = found.state()
        if plain.keys() != known_plain.keys() or arrays.keys() != known.keys():
            raise InputError(
                f"found statistics with {sorted({*plain, *arrays})}; expected "
                f"{sorted({*known_plain, *known})}: another release made them"
            )
        for name, array in arrays.items():
            if array.shape != known[name].shape or array.dtype != known[name].dtype:
                raise InputError(
                    f"found statistics whose {name} is {array.dtype} {list(array.shape)}; expected "
                    f"{known[name].dtype} {list(known[name].shape)}"
                )
        for name, value in plain.items():
            if type(value) is not type(known_plain[name]):
                raise InputError(f"found statistics whose {name} is {value!r}; another type")
        for name, value in plain.items():
            setattr(found, name, value)
        for name, array in arrays.items():
            setattr(found, name, array.copy())
        found._check_state()
        return found

    def _check_state(self) -> None:
        """Refuse numbers that no counting gives."""
        _checked_rows(self.num_rows)
        peaks = all(isinstance(one, float) and 0 <= one < LIMIT for one in self.peaks.values())
        if not peaks or self.num_rows < 0 or int(self.histogram.sum()) != self.num_values:
            raise InputError(
                f"found statistics of {self.num_rows} rows whose histogram counts "
                f"{int(self.histogram.sum())} values, and peaks {self.peaks}; expected "
                f"{self.num_values} values, and peaks of 0 to {LIMIT:.0f}"
            )

    def _checked(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return values as float32 [rows, channels]."""
        if values.ndim != 2 or values.shape[1] != self.num_channels:
            raise InputError(
                f"found values of shape {list(values.shape)}; expected [rows, {self.num_channels}]"
            )
        _checked_rows(self.num_rows + len(values))
        return _narrow(values)


class GramSums:
    """Sums of products of channels, X^T X [channels, channels], exact in any order.

    They take the square of the channels in memory and time, so that they are counted where they are
    asked for alone: of few inputs, and none that is wide.
    """

    def __init__(self, num_channels: int) -> None:
        """Start empty; it takes 56 bytes for each pair of channels."""
        self.num_rows = 0
        self._levels: Integers = np.zeros((2 * _NUM_DIGITS - 1, num_channels, num_channels), int)

    def add(self, values: NDArray[np.floating]) -> None:
        """Count rows [rows, channels].

        Raises:
            InputError: a value that is not finite or is 2^24 or more; nothing is changed.
        """
        found = _narrow(values)
        _checked_rows(self.num_rows + len(found))
        for start in range(0, len(found), _EXACT_ROWS):
            digits = _digits(found[start : start + _EXACT_ROWS]).astype(np.float64)
            used = [place for place in range(_NUM_DIGITS) if digits[place].any()]
            for first in used:
                for second in (one for one in used if one >= first):
                    product = (digits[first].T @ digits[second]).astype(np.int64)
                    both = product if first == second else product + product.T
                    self._levels[first + second] += both
        self.num_rows += len(found)

    def merged(self, other: "GramSums") -> "GramSums":
        """Return the sums of both together."""
        both = GramSums(self._levels.shape[1])
        both.num_rows = _checked_rows(self.num_rows + other.num_rows)
        both._levels = self._levels + other._levels  # noqa: SLF001 - of the same class
        return both

    def matrix(self) -> Floats:
        """Return X^T X [channels, channels]."""
        return _number(self._levels, 2 * _GRID_BITS)

    def mean(self) -> Floats:
        """Return X^T X over the number of rows [channels, channels]; 0 of nothing."""
        return self.matrix() / max(self.num_rows, 1)

    def levels(self) -> Integers:
        """Return sums of products of digits, which are all that is kept besides `num_rows`."""
        return self._levels

    @classmethod
    def from_levels(cls, levels: NDArray[Any], counted: TensorStatistics) -> "GramSums":
        """Take back what `levels` returned.

        Args:
            levels: [2 * digits - 1, channels, channels].
            counted: Of the same rows.

        Raises:
            InputError: sums that are not of those rows.
        """
        found = cls(counted.num_channels)
        known = found._levels
        if levels.shape != known.shape or levels.dtype != known.dtype:
            raise InputError(
                f"found sums of products {levels.dtype} {list(levels.shape)}; expected "
                f"{known.dtype} {list(known.shape)}"
            )
        squares = levels.diagonal(axis1=1, axis2=2)
        is_even = (levels == levels.swapaxes(1, 2)).all()
        if not is_even or (squares != counted._squares).any():  # noqa: SLF001 - of this module
            raise InputError(
                "found sums of products that are not of the rows that were counted; expected the "
                "sums of squares on their diagonal, and the same on both sides of it"
            )
        found.num_rows, found._levels = counted.num_rows, levels.copy()
        return found

    def to_bytes(self) -> bytes:
        """Return all of it; the same sums, the same bytes."""
        return self._levels.astype("<i8").tobytes()


def bin_edges() -> Floats:
    """Return where the bins of a histogram begin and end [NUM_BINS + 1]: 0, 2^-40, ..., 2^24."""
    keys = (np.arange(NUM_BINS, dtype=np.uint32) + _FIRST_KEY) << _DROPPED_BITS
    return np.concatenate(([0.0], keys.view(np.float32).astype(np.float64)))


def _narrow(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return values as float32; refuse what no range could be made from."""
    with np.errstate(over="ignore"):  # what overflows is refused
        found = values.astype(np.float32)
    fits = np.abs(found) < LIMIT  # false for what is not a number
    if not fits.all():
        worst = found[~fits].flat[0]
        raise InputError(
            f"found the value {worst}; expected finite values below {LIMIT:.0f}: the weights, the "
            "statistics of the data set or the images are damaged"
        )
    return found


def _checked_rows(num_rows: int) -> int:
    """Refuse more rows than sums of digits can hold."""
    if num_rows > _MAX_ROWS:
        raise InputError(f"found {num_rows} rows; expected at most {_MAX_ROWS}: use fewer samples")
    return num_rows


def _binned(size: NDArray[np.float32]) -> Integers:
    """Count absolute values by bin [NUM_BINS]."""
    keys = (np.ascontiguousarray(size).view(np.uint32) >> _DROPPED_BITS).astype(np.int64)
    places = np.maximum(keys - (_FIRST_KEY - 1), 0)
    return np.bincount(places.ravel(), minlength=NUM_BINS).astype(np.int64)


def _digits(values: NDArray[np.float32]) -> Integers:
    """Return the digits [4, ...] of values on the grid, each with the value's sign."""
    wide = values.astype(np.float64)
    whole = np.ldexp(np.abs(wide), _GRID_BITS).astype(np.uint64)  # below 2^64: exact, then cut
    mask = np.uint64((1 << _DIGIT_BITS) - 1)
    signs = np.sign(wide).astype(np.int64)
    return np.stack(
        [
            ((whole >> np.uint64(_DIGIT_BITS * place)) & mask).astype(np.int64) * signs
            for place in range(_NUM_DIGITS)
        ]
    )


def _number(levels: Integers, grid_bits: int) -> Floats:
    """Return the numbers [...] that sums of digits [levels, ...] stand for."""
    found = np.zeros(levels.shape[1:])
    for place in reversed(range(len(levels))):
        found += np.ldexp(levels[place].astype(np.float64), _DIGIT_BITS * place - grid_bits)
    return found
