"""The scale table: what calibration found of every quantized tensor, as a file with a schema."""

import math
import re
from typing import Any, Literal

import msgspec

from memorywam_runtime.errors import InputError
from memorywam_runtime.schemas import schema_of

__all__ = [
    "SCHEMA_VERSION",
    "PlateauEntry",
    "Provenance",
    "SamplePoint",
    "ScaleEntry",
    "ScaleTable",
    "SecondPassEntry",
    "SeenRange",
    "SmoothEntry",
    "StepEntry",
    "scale_table_from_json",
    "scale_table_schema",
    "scale_table_to_json",
]

SCHEMA_VERSION = 1
_LEAST, _MOST = 2.0**-126, 2.0**118
"""Of a number that graphs hold in float32: no zero there, nor, times what 8 bits hold, infinity."""
_NUMBERS = re.compile(rb"\[\s+[-+.\deE]+(?:,\s+[-+.\deE]+)*\s+\]")
"""A list of numbers, as it is indented; no string holds a line break, so this is none's part."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


def _all_fit(numbers: tuple[float, ...]) -> bool:
    """Is there a number, and is each finite and above 0 where graphs use it?"""
    return bool(numbers) and all(_LEAST <= number <= _MOST for number in numbers)


class ScaleEntry(_Part, frozen=True):
    """One tensor and the scales that bring it to its type: symmetric, real = scale * quantized.

    Raises:
        InputError: a scale that is not finite and above 0, or one that no axis asks for.
    """

    kind: Literal["activation", "weight", "memory"]
    dtype: Literal["int8", "int4", "fp8"]
    scales: tuple[float, ...]
    """One, or one for each element along `axis`; none of a weight whose largest values choose them:
    the bundle has them beside it."""
    observer: str
    """What chose the range: max, percentile, mse, entropy."""
    absmax: float
    """Largest absolute value that was seen."""
    axis: int | None = None
    """Of the tensor; None for one scale."""
    clipped: float = 0.0
    """Share of the values seen that lie outside the range."""
    sqnr_db: float | None = None
    """Power of the values seen over that of the rounding error, dB."""

    def __post_init__(self) -> None:
        """Refuse scales that no engine could take."""
        is_left_out = not self.scales and (self.kind, self.observer) == ("weight", "max")
        if not is_left_out and not _all_fit(self.scales):
            raise InputError(
                "a scale table: found a scale that is not finite and above 0 in float32"
            )
        if self.axis is None and len(self.scales) != 1:
            raise InputError(f"a scale table: found {len(self.scales)} scales without an axis")
        if not (math.isfinite(self.absmax) and self.absmax >= 0 and 0 <= self.clipped <= 1):
            raise InputError(
                f"a scale table: found absmax {self.absmax} and clipped {self.clipped}; expected "
                "a finite number of at least 0, and a share"
            )


class SmoothEntry(_Part, frozen=True):
    """What divides an input of products, channel by channel, and multiplies their weights.

    The products stay what they were; both operands become easier to round.

    Raises:
        InputError: a factor that is not finite and above 0.
    """

    alpha: float
    """Factors are max |x| ^ alpha / max |w| ^ (1 - alpha), to a common factor."""
    factors: tuple[float, ...]
    """One for each channel."""
    sites: tuple[str, ...]
    """All products that take the input, `graph/name`."""
    error: float
    """Of the products by rounding, estimated: over the power that channels bring on their own."""
    plain_error: float
    """The same without factors."""

    def __post_init__(self) -> None:
        """Refuse factors that would lose a channel."""
        if not _all_fit(self.factors):
            raise InputError(
                "a scale table: found a factor that is not finite and above 0 in float32"
            )


class StepEntry(_Part, frozen=True):
    """What multiplies an input of products in each denoising step, and divides what they give out.

    Raises:
        InputError: a gain that is not finite and above 0, or another number than of timesteps.
    """

    timesteps: tuple[float, ...]
    """Of the steps that were seen, and of clean actions where memory keeps them."""
    gains: tuple[float, ...]
    """One for each timestep; others take the nearest one's."""
    sites: tuple[str, ...]
    """All products that take the input, `graph/name`."""
    ratio: float
    """Largest value of the input in one step over that in another, at most."""
    error: float
    """Mean square of the input's rounding, estimated, over that of its values."""
    plain_error: float
    """The same without gains."""

    def __post_init__(self) -> None:
        """Refuse gains that would lose a step."""
        if not _all_fit(self.gains):
            raise InputError(
                "a scale table: found a gain that is not finite and above 0 in float32"
            )
        if len(self.gains) != len(self.timesteps):
            raise InputError(
                f"a scale table: found {len(self.gains)} gains of {len(self.timesteps)} timesteps"
            )


class SeenRange(_Part, frozen=True):
    """What was seen of one tensor: does it fit float16, does one scale do for all steps?"""

    absmax: float
    p999: float
    """What 99.9 % of the absolute values are at most."""
    num_values: int
    groups: dict[str, float]
    """Largest absolute value by denoising step (`step/03`) or class of tokens (`gist`)."""


class SamplePoint(_Part, frozen=True):
    """One decision point."""

    episode: str
    frame: int
    """The newest in memory, from 0."""
    seed: int
    """Of the noise that the chunk started from."""


class PlateauEntry(_Part, frozen=True):
    """How much scales moved when a first part of the decision points grew to a larger one."""

    num_samples: int
    """Of the larger part."""
    worst_change: float
    """Largest relative change of an activation's scale."""
    worst_site: str
    share_settled: float
    """Of the activations, whose scale changed less than the recipe asks."""


class SecondPassEntry(_Part, frozen=True):
    """What became of ranges when memory was written by rounded products, or kept narrow."""

    worst_growth: float
    """Of an activation's largest value, over that of the first pass; of a tensor of memory, of the
    one channel's scale that grew most."""
    worst_site: str
    num_grown: int
    """Activations, or tensors of memory, that grew."""
    num_sites: int
    """All that were compared."""


class Provenance(_Part, frozen=True):
    """What the scales were made from."""

    recordings: dict[str, str]
    """Episode to the SHA-256 of its file, or the seed of a simulated one."""
    calibration: tuple[str, ...]
    """Episodes that were used; the others are for development and for the report."""
    development: tuple[str, ...]
    held_out: tuple[str, ...]
    num_samples: int
    """Decision points."""
    seed: int
    """Of split, choice and noise."""
    versions: dict[str, str]
    samples: tuple[SamplePoint, ...] = ()
    """All of them, in the order of their choice."""
    num_denoising_steps: int = 0
    """That each went through."""
    num_threads: int = 0
    """Of torch, in every process that replayed: sums may round otherwise with more. 0: unknown."""
    coverage: dict[str, int] = {}
    """Decision points by cell of the coverage table."""
    missing: tuple[str, ...] = ()
    """Cells without any, which were allowed to be missing."""
    plateau: tuple[PlateauEntry, ...] = ()
    """Over nested parts of the decision points."""
    second_pass: SecondPassEntry | None = None
    """None where there was none."""
    statistics_sha256: str = ""
    """Of all that was counted; the same whatever the order, or the machines that shared it."""


class ScaleTable(_Part, frozen=True):
    """Scales of one bundle's tensors under one recipe."""

    schema_version: int
    recipe: str
    contract_hash: str
    checkpoint_sha256: str
    graph_sha256s: dict[str, str]
    """Graph to the hash of its file: of others the names would not be the same."""
    entries: dict[str, ScaleEntry]
    """By site, `graph/name`: of an activation or a weight the weight's name that it meets, as
    `cache_update/mixtures.video.blocks.3.ffn.0:input` and `...ffn.0:weight`; of memory
    `memory.03.k`."""
    wide: dict[str, str]
    """Products that stay in the bundle's type, `graph/name`, and why."""
    provenance: Provenance
    smooth: dict[str, SmoothEntry] = {}
    """By input, the first of its products as `graph/name:input`; its scales are of the quotient."""
    steps: dict[str, StepEntry] = {}
    """By input, as `smooth`."""
    chosen: dict[str, str] = {}
    """Under `mixed`, a weight's name, less `.weight`, to its recipe; others stay wide."""
    ranges: dict[str, SeenRange] = {}
    """By site, what was seen: of quantized activations, wide ones, and memory."""


def scale_table_to_json(table: ScaleTable) -> bytes:
    """Return the table as JSON with sorted keys: the same table, the same bytes.

    Indented, but for lists of numbers, which take a line each: factors by channel are many.
    """
    text = msgspec.json.format(msgspec.json.encode(table, order="sorted"), indent=2)
    return _NUMBERS.sub(lambda found: b"".join(found[0].split()), text) + b"\n"


def scale_table_from_json(text: bytes) -> ScaleTable:
    """Read a table.

    Raises:
        InputError: not JSON, another schema version, an unknown or missing field, or a wrong type.
    """
    try:
        found: object = msgspec.json.decode(text)
        version = found.get("schema_version") if isinstance(found, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"a scale table: found schema version {version}; this release reads "
                f"{SCHEMA_VERSION}: calibrate again, or use the release that made it"
            )
        return msgspec.json.decode(text, type=ScaleTable)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"a scale table: {error}; calibrate again") from error


def scale_table_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a scale table."""
    return schema_of(ScaleTable)
