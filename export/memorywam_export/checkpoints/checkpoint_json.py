"""The JSON files beside a checkpoint: its contract and its statistics, read with bounds."""

import json
from pathlib import Path

from memorywam_runtime.contract import InferenceContract, contract_from_json
from memorywam_runtime.errors import CheckpointError, ContractError
from memorywam_runtime.files import read_file

__all__ = ["read_contract", "read_stats"]

_MOST_BYTES = 1 << 26


def read_contract(path: Path) -> InferenceContract:
    """Read a contract's file.

    Raises:
        ContractError: no file, or no contract in it.
        OSError: it cannot be read.
    """
    content = read_file(path, _MOST_BYTES, ContractError)
    try:
        return contract_from_json(content)
    except ContractError as error:
        raise ContractError(f"{path}: {error}") from error


def read_stats(path: Path) -> object:
    """Return what a file of statistics holds.

    Raises:
        CheckpointError: no JSON, no file, or one that cannot be read.
    """
    try:
        # Whole numbers too become floats: one of a thousand digits is none that numpy takes.
        return json.loads(read_file(path, _MOST_BYTES, CheckpointError), parse_int=float)
    except CheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; expected FastWAM's dataset statistics: pass --stats FILE"
        ) from error
