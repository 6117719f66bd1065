"""The scale table: what calibration found of every quantized tensor, as a file with a schema."""

import math
from typing import Any, Literal

import msgspec

from memorywam_runtime.errors import InputError

__all__ = [
    "SCHEMA_VERSION",
    "PlateauEntry",
    "Provenance",
    "SamplePoint",
    "ScaleEntry",
    "ScaleTable",
    "SeenRange",
    "scale_table_from_json",
    "scale_table_schema",
    "scale_table_to_json",
]

SCHEMA_VERSION = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class ScaleEntry(_Part, frozen=True):
    """One tensor and the scales that bring it to its type: symmetric, real = scale * quantized.

    Raises:
        InputError: a scale that is not finite and above 0, or one that no axis asks for.
    """

    kind: Literal["activation", "weight", "memory"]
    dtype: Literal["int8", "int4", "fp8"]
    scales: tuple[float, ...]
    """One, or one for each element along `axis`."""
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
        if not self.scales or not all(math.isfinite(s) and s > 0 for s in self.scales):
            raise InputError("a scale table: found a scale that is not finite and above 0")
        if self.axis is None and len(self.scales) != 1:
            raise InputError(f"a scale table: found {len(self.scales)} scales without an axis")
        if not (math.isfinite(self.absmax) and self.absmax >= 0 and 0 <= self.clipped <= 1):
            raise InputError(
                f"a scale table: found absmax {self.absmax} and clipped {self.clipped}; expected "
                "a finite number of at least 0, and a share"
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
    coverage: dict[str, int] = {}
    """Decision points by cell of the coverage table."""
    missing: tuple[str, ...] = ()
    """Cells without any, which were allowed to be missing."""
    plateau: tuple[PlateauEntry, ...] = ()
    """Over nested parts of the decision points."""
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
    ranges: dict[str, SeenRange] = {}
    """By site, what was seen: of quantized activations, wide ones, and memory."""


def scale_table_to_json(table: ScaleTable) -> bytes:
    """Return the table as indented JSON with sorted keys: the same table, the same bytes."""
    return msgspec.json.format(msgspec.json.encode(table, order="sorted"), indent=2) + b"\n"


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
    return msgspec.json.schema(ScaleTable)
