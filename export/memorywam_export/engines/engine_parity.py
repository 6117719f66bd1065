"""The parity report of engines, beside them: what lets a robot load them."""

from pathlib import Path
from typing import Any

import msgspec

from memorywam_runtime.engines import ParityEntry, read_engines, write_engines
from memorywam_runtime.files import atomic_write, sha256_of
from memorywam_runtime.report import json_from_data

__all__ = ["PARITY_FILE", "record_parity"]

PARITY_FILE = "parity.json"


def record_parity(directory: Path, data: dict[str, Any], *, passed: bool) -> None:
    """Write what `verify` found beside the engines, and note it with their hashes.

    Until the note is written the engines stand as they stood: an old report that the new one has
    overwritten vouches for nothing, since its hash no longer fits.

    Args:
        directory: Holds `engines.json`.
        data: The report.
        passed: Whether every check held.

    Raises:
        BundleError: no engines there.
    """
    engines = read_engines(directory)
    path = directory / PARITY_FILE
    atomic_write(path, json_from_data(data).encode())
    entry = ParityEntry(
        file=PARITY_FILE,
        sha256=sha256_of(path),
        passed=passed,
        engine_sha256s={graph: engine.sha256 for graph, engine in engines.engines.items()},
    )
    write_engines(directory, msgspec.structs.replace(engines, parity=entry))
