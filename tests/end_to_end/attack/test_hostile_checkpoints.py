"""Checkpoints, damaged at random and by hand: weights come whole, or not at all; no code runs."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from tests.end_to_end.attack.mutations import damaged, fuzzed, lawful
from tests.fakes.checkpoints import TINY, tensors_of, write_stats

from memorywam_export.checkpoints import torch_files
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument
from memorywam_export.checkpoints.checkpoint_files import tensor_file_from_path
from memorywam_export.checkpoints.checkpoint_json import read_contract, read_stats
from memorywam_export.checkpoints.name_map_format import map_file_from_json
from memorywam_export.checkpoints.name_maps import NameMap, shipped_maps
from memorywam_export.checkpoints.text_cache import read_cache_entry
from memorywam_runtime.contract import contract_to_json
from memorywam_runtime.errors import CheckpointError, InputError


def load_all(path: Path) -> int:
    """Read every tensor of a file."""
    return sum(one.checked().numel() for one in tensor_file_from_path(path).tensors.values())


@pytest.mark.parametrize("name", ["one.pt", "one.safetensors"])
@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.proof)])
def test_a_damaged_file_is_read_or_refused(name: str, count: int, tmp_path: Path) -> None:
    path, tensors = tmp_path / name, {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(3)}
    if name.endswith(".pt"):
        torch.save({"step": 3, "model": tensors}, path)
    else:
        save_file(tensors, path, {"format": "pt"})
    whole = path.read_bytes()
    assert load_all(path) == 9

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return load_all(path)

    fuzzed(read, [whole], damaged, count=count, name=name)


class Runs:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_no_code_is_run(tmp_path: Path) -> None:
    path, made = tmp_path / "one.pt", tmp_path / "made"
    torch.save({"a": torch.ones(1), "b": Runs(made)}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        load_all(path)
    path.write_bytes(pickle.dumps(Runs(made)))
    with pytest.raises(CheckpointError, match="would run code"):
        load_all(path)
    assert not made.exists()


def itself() -> dict[str, Any]:
    """Return a dictionary that holds itself."""
    found: dict[str, Any] = {}
    found["a"] = found
    return found


def doubled() -> dict[str, Any]:
    """Return thirty dictionaries that are a tree of a milliard leaves."""
    found: dict[str, Any] = {"a": 0}
    for _ in range(30):
        found = {"a": found, "b": found}
    return found


def nested() -> dict[str, Any]:
    """Return dictionaries, a thousand deep."""
    found: dict[str, Any] = {"a": 0}
    for _ in range(400):
        found = {"a": found}
    return found


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (itself, "nested deeper than 32"),
        (nested, "nested deeper than 32"),
        (doubled, "more than 4,096 entries"),
        (lambda: {10**50: 1}, "a key of 167 bits"),
        (lambda: {"k" * 5000: 1}, "a key of 5,000 characters"),
        (lambda: {"a": torch.empty(3, device="meta")}, "'a' is a tensor torch.strided on meta"),
        (lambda: {"a": torch.eye(3).to_sparse()}, "'a' is a tensor torch.sparse_coo on cpu"),
        (lambda: [1], "found list; expected a dictionary"),
    ],
)
@pytest.mark.timeout(60)
def test_a_tree_without_an_end_is_refused(
    content: Callable[[], Any], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_files, "_MOST_LEAVES", 1 << 12)
    path = tmp_path / "one.pt"
    torch.save(content(), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=complaint):
        tensor_file_from_path(path)


def test_a_packed_file_is_refused_rather_than_read_wrongly(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "whole.pt")
    packed = tmp_path / "one.pt"
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load_all(packed)


@pytest.mark.parametrize("size", [2**63, 2**32, 100_000_001])
def test_a_header_longer_than_its_file_is_not_read(size: int, tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    with path.open("wb") as stream:
        stream.write(size.to_bytes(8, "little") + b"{")
        stream.truncate(100_000_100)
    with pytest.raises(CheckpointError, match="a header of"):
        tensor_file_from_path(path)


@pytest.mark.parametrize("name", ["one.pt", "one.safetensors", "contract.json", "stats.json"])
@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "one.pt": tensor_file_from_path, "one.safetensors": tensor_file_from_path,
        "contract.json": read_contract, "stats.json": read_stats,
    }  # fmt: skip
    path = tmp_path / name
    os.mkfifo(path)
    assert lawful(lambda: readers[name](path), name)
    path.unlink()
    path.mkdir()
    assert lawful(lambda: readers[name](path), name)
    path.rmdir()
    path.symlink_to("/dev/zero")
    assert lawful(lambda: readers[name](path), name)


def test_a_contract_of_far_more_layers_than_the_file_is_refused(tmp_path: Path) -> None:
    save_file(tensors_of(TINY), tmp_path / "model.safetensors")
    write_stats(tmp_path, TINY)
    huge = msgspec.structs.replace(TINY, num_layers=4096)  # the most that a contract may say
    (tmp_path / "contract.json").write_bytes(contract_to_json(huge))
    with pytest.raises(CheckpointError, match=r"has 4,\d\d\d layers and blocks"):
        checkpoint_from_argument(str(tmp_path))


def test_statistics_of_a_thousand_digits_are_no_number(tmp_path: Path) -> None:
    save_file(tensors_of(TINY), tmp_path / "model.safetensors")
    (tmp_path / "contract.json").write_bytes(contract_to_json(TINY))
    write_stats(tmp_path, TINY)
    path = tmp_path / "dataset_stats.json"
    stats = json.loads(path.read_bytes())
    stats["action"]["joint"]["global_mean"][0] = 10**1000
    path.write_text(json.dumps(stats))
    with pytest.raises(CheckpointError, match="finite"):
        checkpoint_from_argument(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            {"context": torch.ones(2, 3), "mask": torch.ones(1).expand(10**12)},
            "a mask of 1,000,000,000,000 rows",
        ),
        ({"context": torch.ones(2, 3), "mask": torch.empty(2, device="meta")}, "on meta"),
        ({"context": torch.eye(3).to_sparse(), "mask": torch.ones(3)}, "sparse_coo"),
    ],
)
@pytest.mark.timeout(60)
def test_a_cache_of_tensors_that_are_none_is_refused(
    content: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=complaint):
        read_cache_entry(path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rules": [{"upstream": "a", "ours": "b", "leading_axes": 10**12}]}, "leading_axes"),
        ({"rules": [{"upstream": "a", "ours": "b", "leading_axes": -1}]}, "leading_axes -1"),
        ({"placeholders": {"": ["a"]}, "markers": [["{}"]]}, "the placeholder ''"),
    ],
)
def test_a_name_map_that_nothing_fits_is_refused(change: dict[str, Any], complaint: str) -> None:
    whole = json.loads(msgspec.json.encode(next(iter(shipped_maps().values())).file))
    with pytest.raises(InputError, match=complaint):
        NameMap(map_file_from_json(json.dumps(whole | change).encode(), "a map"))
