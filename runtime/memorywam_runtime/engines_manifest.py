"""The schema of `engines.json`: what a directory of engines promises."""

from typing import Any, Literal

import msgspec

from memorywam_runtime.errors import BundleError
from memorywam_runtime.manifest import Precision
from memorywam_runtime.schemas import schema_of

__all__ = [
    "ENGINES_FILE",
    "ENGINES_SCHEMA_VERSION",
    "AuditEntry",
    "EngineEntry",
    "EnginesManifest",
    "ParityEntry",
    "RowsProfile",
    "engines_from_json",
    "engines_schema",
    "engines_to_json",
]

ENGINES_FILE = "engines.json"
ENGINES_SCHEMA_VERSION = 1


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts: immutable, keyword-only, and strict about unknown fields."""


class RowsProfile(_Part, frozen=True):
    """One optimization profile: the rows of memory that an engine takes under it."""

    rows_min: int
    rows_opt: int
    """Rows that the compiler chooses its kernels for."""
    rows_max: int


class AuditEntry(_Part, frozen=True):
    """What was found when the engine was looked at after it was built."""

    source: Literal["network", "engine"]
    """The strongly typed network, whose types bind the engine, or the engine's own inspector,
    which needs the device."""
    gemm_weight_bytes: dict[str, int]
    """Bytes of the weights of matrix products and convolutions by element type, as `BF16`."""
    num_memory_writes: int
    """Writes into memory tensors, in place."""
    bytes_per_write: int
    """New keys and values that one call writes into memory, all layers, bytes."""
    memory_copies: tuple[str, ...]
    """Layers that would copy, cast or concatenate a whole memory tensor."""

    @property
    def gemm_share(self) -> dict[str, float]:
        """Return the share of those weight bytes by element type, 0 to 1."""
        total = sum(self.gemm_weight_bytes.values())
        return {name: count / total for name, count in self.gemm_weight_bytes.items()}


class EngineEntry(_Part, frozen=True):
    """One engine: its file, what it was built from, and what was found in it."""

    graph: str
    file: str
    num_bytes: int
    sha256: str
    graph_sha256: str
    """Of everything that decides the graph, see `graph_hash`."""
    key: str
    """Of everything that decides the engine; equal keys need no second build."""
    profiles: tuple[RowsProfile, ...]
    """In the engine's order; empty for a graph without open sizes."""
    audit: AuditEntry
    build_s: float
    """Time that the build took, seconds."""


class ParityEntry(_Part, frozen=True):
    """A report that compared these engines with the graphs below them."""

    file: str
    sha256: str
    passed: bool
    engine_sha256s: dict[str, str]
    """Graph to hash of the engine file that was compared."""


class EnginesManifest(_Part, frozen=True):
    """What one directory of engines holds, stored as `engines.json` once all are built."""

    schema_version: int
    contract_hash: str
    precision: Precision
    """Of the bundle."""
    backend: str
    """`tensorrt` or `tensorrt-rtx`."""
    backend_version: str
    target: str
    """GPU architecture, as `sm_89`."""
    recipe: str
    """Type of the matrix products, as `bf16`."""
    engines: dict[str, EngineEntry]
    """Graph to engine; every graph of the bundle."""
    parity: ParityEntry | None
    versions: dict[str, str]
    """Of the machine that built them."""


def engines_to_json(engines: EnginesManifest) -> bytes:
    """Return the engines' manifest as indented JSON with sorted keys."""
    return msgspec.json.format(msgspec.json.encode(engines, order="sorted"), indent=2) + b"\n"


def engines_from_json(text: bytes) -> EnginesManifest:
    """Read an engines' manifest.

    Raises:
        BundleError: not JSON, another schema version, an unknown or missing field, or an entry
            under another graph's name.
    """
    try:
        found = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"{ENGINES_FILE}: not JSON ({error}); the file is damaged: build again"
        ) from error
    version = found.get("schema_version") if isinstance(found, dict) else None
    if version != ENGINES_SCHEMA_VERSION:
        raise BundleError(
            f"{ENGINES_FILE}: found schema version {version}; this release reads "
            f"{ENGINES_SCHEMA_VERSION}: build the engines again, or use the release that did"
        )
    try:
        engines = msgspec.json.decode(text, type=EnginesManifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BundleError(f"{ENGINES_FILE}: {error}; build the engines again") from error
    for graph, entry in engines.engines.items():
        if entry.graph != graph:
            raise BundleError(
                f"{ENGINES_FILE}: found the engine of '{entry.graph}' under '{graph}'; expected "
                "each under its own name: the file was edited; build the engines again"
            )
    return engines


def engines_schema() -> dict[str, Any]:
    """Return the published JSON Schema of `engines.json`."""
    return schema_of(EnginesManifest)
