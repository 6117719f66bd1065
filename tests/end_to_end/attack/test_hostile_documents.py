"""JSON that crosses the product's borders, damaged at random: read, or refused in one sentence."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.end_to_end.attack.mutations import damaged, document_bytes, edited, fuzzed

from memorywam_export.checkpoints.checkpoint_json import read_contract, read_stats
from memorywam_export.checkpoints.name_map_format import map_file_from_json
from memorywam_export.checkpoints.name_maps import NameMap, shipped_maps
from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.cameras.frame_faults import read_faults
from memorywam_robot.live.live_hardware import read_limits
from memorywam_runtime.contract import contract_to_json
from memorywam_runtime.engines_manifest import engines_from_json
from memorywam_runtime.normalization import normalization_from_stats
from memorywam_runtime.scale_table import scale_table_from_json

CONTRACT = contract_from_preset("tiny")
JOINTS = CONTRACT.actions.action_dim
HASH = "a" * 64

TABLE: dict[str, Any] = {
    "schema_version": 1,
    "recipe": "int8",
    "contract_hash": HASH,
    "checkpoint_sha256": HASH,
    "graph_sha256s": {"cache_update": HASH},
    "entries": {
        "cache_update/a.weight:input": {
            "kind": "activation", "dtype": "int8", "scales": [0.5], "observer": "mse",
            "absmax": 3.0,
        },
        "cache_update/a.weight:weight": {
            "kind": "weight", "dtype": "int8", "scales": [0.5, 0.25], "observer": "percentile",
            "absmax": 3.0, "axis": 1, "clipped": 0.25, "sqnr_db": 40.0,
        },
    },
    "wide": {"cache_update/b.weight": "sensitive"},
    "smooth": {"cache_update/a.weight:input": {
        "alpha": 0.5, "factors": [1.0, 2.0], "sites": ["cache_update/a"], "error": 0.1,
        "plain_error": 0.2,
    }},
    "steps": {"action_step/a.weight:input": {
        "timesteps": [1.0, 0.5], "gains": [1.0, 2.0], "sites": ["action_step/a"], "ratio": 2.0,
        "error": 0.1, "plain_error": 0.2,
    }},
    "provenance": {
        "recordings": {"one": HASH}, "calibration": ["one"], "development": [], "held_out": [],
        "num_samples": 1, "seed": 0, "versions": {},
        "samples": [{"episode": "one", "frame": 3, "seed": 1}],
    },
}  # fmt: skip
ENGINES: dict[str, Any] = {
    "schema_version": 1, "contract_hash": HASH, "precision": "bf16", "backend": "tensorrt",
    "backend_version": "10.0", "target": "sm_89", "recipe": "bf16", "parity": None,
    "versions": {},
    "engines": {"vae_first": {
        "graph": "vae_first", "file": "vae_first.engine", "num_bytes": 3, "sha256": HASH,
        "graph_sha256": HASH, "key": HASH, "build_s": 1.0,
        "profiles": [{"rows_min": 1, "rows_opt": 2, "rows_max": 3}],
        "audit": {"source": "network", "gemm_weight_bytes": {"BF16": 1}, "num_memory_writes": 0,
                  "bytes_per_write": 0, "memory_copies": []},
    }},
}  # fmt: skip
STATS = {
    kind: {"joint": {"global_mean": [0.5] * JOINTS, "global_std": [2.0] * JOINTS}}
    for kind in ("action", "state")
}
LIMITS = {
    "lower": [-1.0] * JOINTS, "upper": [1.0] * JOINTS, "velocity": [1.0] * JOINTS,
    "acceleration": [5.0] * JOINTS, "step": [0.1] * JOINTS, "home": [0.0] * JOINTS,
}  # fmt: skip
FAULTS = {"version": 1, "faults": [
    {"kind": "drop", "at": 3, "count": 2},
    {"kind": "late", "at": 10, "by_ms": 50.0, "camera": "head"},
    {"kind": "freeze", "at": 20},
    {"kind": "unplug", "at": 30},
]}  # fmt: skip


def of_file(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    """Read a file by its name."""

    def reading(content: bytes, folder: Path) -> object:
        path = folder / "document.json"
        path.write_bytes(content)
        return read(path)

    return reading


def read_map(content: bytes, folder: Path) -> object:
    """Read a name map, and use it."""
    name_map = NameMap(map_file_from_json(content, "a map"))
    return [name_map.upstream_of(name) for name in ("gist_tokens", "mixtures.video.blocks.0.x")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A document, and whoever reads it."""

    whole: Any
    read: Callable[[bytes, Path], object]


KINDS = {
    "scale table": Kind(whole=TABLE, read=lambda text, _: scale_table_from_json(text)),
    "engines": Kind(whole=ENGINES, read=lambda text, _: engines_from_json(text)),
    "contract": Kind(
        whole=json.loads(contract_to_json(CONTRACT)), read=of_file(lambda path: read_contract(path))
    ),
    "statistics": Kind(
        whole=STATS,
        read=of_file(lambda path: normalization_from_stats(read_stats(path), CONTRACT.actions)),
    ),
    "limits": Kind(whole=LIMITS, read=of_file(lambda path: read_limits(path, CONTRACT))),
    "camera faults": Kind(whole=FAULTS, read=of_file(read_faults)),
    "name map": Kind(
        whole=json.loads(msgspec.json.encode(next(iter(shipped_maps().values())).file)),
        read=read_map,
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_document_is_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, count=100)


@pytest.mark.proof
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_documents_are_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, count=10_000, is_guided=True)


def attack(name: str, folder: Path, *, count: int, is_guided: bool = False) -> None:
    """Damage fields, then bytes."""
    kind = KINDS[name]

    def read(content: bytes) -> object:
        return kind.read(content, folder)

    assert kind.read(document_bytes(kind.whole), folder) is not None
    more = {"count": count, "name": name, "is_guided": is_guided}
    num_read = fuzzed(read, [kind.whole], edited, encode=document_bytes, **more)  # type: ignore[arg-type]
    assert num_read < count, f"nothing was refused of {name}: is it read at all?"
    fuzzed(read, [document_bytes(kind.whole)], damaged, **more)  # type: ignore[arg-type]
