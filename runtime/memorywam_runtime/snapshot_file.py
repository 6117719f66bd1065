"""A policy's snapshot as a file, so that a long task goes on after a crash, bit for bit.

The file is laid out as safetensors, which others can look into: tensors by name, and everything
else as JSON in its header. Saving reads all of memory: do it between chunks, never in a tick.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write, read_file
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.memory import MemoryState
from memorywam_runtime.policy import Policy, PolicySnapshot
from memorywam_runtime.snapshot import SessionSnapshot

__all__ = ["restore_from_file", "save_to_file"]

SCHEMA_VERSION = 1
_KEY = "memorywam.snapshot"
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
"""What the format allows."""
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "U16": np.uint16,  # the bits of bfloat16
    "I64": np.int64,
    "I8": np.int8,
    "U8": np.uint8,  # the bits of float8e4m3fn
}
_NAMES = {np.dtype(dtype): name for name, dtype in _TYPES.items()}


class _Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a snapshot but its tensors."""

    schema_version: int
    made_by: str
    """Hash of the graphs and weights: the contract alone does not say whose memory it is."""
    contract_hash: str
    memory: MemoryState
    bucket: int
    turn: int
    has_state: bool
    instruction: str
    next_step: int
    noise_state: dict[str, Any]


def save_to_file(policy: Policy, path: Path) -> None:
    """Write all of a policy's state, whole or not at all.

    Raises:
        InputError: a group of observations is incomplete, or the folder is not there.
    """
    snapshot = policy.snapshot()
    session = snapshot.session
    saved = _Saved(
        schema_version=SCHEMA_VERSION,
        made_by=_made_by(policy.session.manifest),
        contract_hash=session.contract_hash,
        memory=session.memory,
        bucket=session.bucket,
        turn=session.turn,
        has_state=session.has_state,
        instruction=snapshot.instruction,
        next_step=snapshot.next_step,
        noise_state=snapshot.noise_state,
    )
    header: dict[str, Any] = {}
    parts, offset = [], 0
    for name, array in session.arrays.items():
        parts.append(np.ascontiguousarray(array).tobytes())
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(parts[-1])],
        }
        offset += len(parts[-1])
    # Not msgspec's encoder: a random generator's counters have 128 bits.
    text = json.dumps(msgspec.to_builtins(saved))
    data = b"".join(parts)
    hashed = _hash(text, header, data)
    encoded = json.dumps({"__metadata__": {_KEY: text, "sha256": hashed}, **header}).encode()
    atomic_write(path, len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded + data)


def restore_from_file(policy: Policy, path: Path) -> None:
    """Take over a snapshot that a policy on the same graphs and weights has saved.

    Raises:
        InputError: no such file, a damaged one, or of another bundle; nothing is changed.
    """
    saved, arrays = _read(path)
    made_by = _made_by(policy.session.manifest)
    if saved.made_by != made_by:
        raise InputError(
            f"{path}: a snapshot of graphs and weights {saved.made_by[:12]}...; expected "
            f"{made_by[:12]}...: open the bundle that it was saved with"
        )
    policy.restore(
        PolicySnapshot(
            session=SessionSnapshot(
                contract_hash=saved.contract_hash,
                memory=saved.memory,
                bucket=saved.bucket,
                turn=saved.turn,
                has_state=saved.has_state,
                arrays=arrays,
            ),
            instruction=saved.instruction,
            next_step=saved.next_step,
            noise_state=saved.noise_state,
        )
    )


def _read(path: Path) -> tuple[_Saved, dict[str, NDArray[Any]]]:
    """Return what is in a file, once its hash is right."""
    try:
        # As large as it says: only pipes and devices have no end, and those are no files.
        content = read_file(path, path.stat().st_size, InputError)
        size = int.from_bytes(content[:_LENGTH_BYTES], "little")
        _check(0 < size <= _MOST_HEADER_BYTES, f"a header of {size} bytes")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + size])
        about, data = header.pop("__metadata__"), content[_LENGTH_BYTES + size :]
        _check(about["sha256"] == _hash(about[_KEY], header, data), "another hash than it says")
        found = json.loads(about[_KEY])
        version = found["schema_version"]
        _check(version == SCHEMA_VERSION, f"schema version {version}, not {SCHEMA_VERSION}")
        saved = msgspec.convert(found, _Saved)
        return saved, {name: _array(entry, data) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: no snapshot that can be taken over ({error}); expected a whole file that "
            "`save_to_file` of this release has written"
        ) from error


def _check(holds: bool, found: str) -> None:  # noqa: FBT001 - a claim, not an option
    """Refuse a file for what was found in it."""
    if not holds:
        raise ValueError(found)


def _array(entry: dict[str, Any], data: bytes) -> NDArray[Any]:
    """Return one tensor."""
    first, end = entry["data_offsets"]
    flat: NDArray[Any] = np.frombuffer(data[first:end], _TYPES[entry["dtype"]])
    return flat.reshape(entry["shape"])


def _made_by(manifest: Manifest) -> str:
    """Return one hash of a bundle's graphs and weights."""
    return hashlib.sha256(json.dumps(manifest.graph_files, sort_keys=True).encode()).hexdigest()


def _hash(text: str, header: dict[str, Any], data: bytes) -> str:
    """Return the hash of everything in a file."""
    digest = hashlib.sha256(text.encode())
    digest.update(json.dumps(header, sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()
