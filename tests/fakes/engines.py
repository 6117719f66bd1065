"""Bundles to compile, exported once a run, and engines that only their manifest knows."""

import dataclasses
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import onnx
import pytest
from onnx import helper
from tests.fakes.exporter import torchlib_once

from memorywam_export.bundles.bundle import PRECISIONS, ExportOptions, export_bundle
from memorywam_export.checkpoints.checkpoint import checkpoint_from_argument, model_shapes
from memorywam_export.checkpoints.weights import random_weights
from memorywam_runtime.engines import (
    ENGINES_SCHEMA_VERSION,
    AuditEntry,
    EngineEntry,
    EnginesManifest,
    ParityEntry,
    RowsProfile,
    graph_hash,
    write_engines,
)
from memorywam_runtime.manifest import Manifest

__all__ = ["compiled_bundle", "fake_engines", "quantized_product", "with_parity"]


def compiled_bundle(
    factory: pytest.TempPathFactory,
    preset: str,
    precision: Any,
    *,
    opset: int = 24,
    num_layers: int | None = None,
    no_rewrites: tuple[str, ...] = (),
) -> Path:
    """Export random weights of a preset, unless this run has done so; return the bundle.

    Args:
        factory: Of the run's folder.
        preset: Name of a contract that ships.
        precision: Of the bundle.
        opset: Of the graphs.
        num_layers: Fewer than the preset's, so that full width takes seconds.
        no_rewrites: Exact rewrites to leave out.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    parts = (preset, precision, f"opset{opset}", str(num_layers or "all"), *no_rewrites)
    path = base / "-".join(("compiled", *parts))
    with (base / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            torchlib_once()
            checkpoint = checkpoint_from_argument(f"random:{preset}", dtype=PRECISIONS[precision])
            if num_layers is not None:
                contract = msgspec.structs.replace(checkpoint.contract, num_layers=num_layers)
                shapes = model_shapes(contract).items()
                weights = tuple(random_weights(shapes, PRECISIONS[precision], 0))
                checkpoint = dataclasses.replace(
                    checkpoint, contract=contract, weights=weights, prompts={}
                )
            options = ExportOptions(precision=precision, opset=opset, no_rewrites=no_rewrites)
            export_bundle(checkpoint, path, options)
    return path


def quantized_product(path: Path, element_type: int) -> Path:
    """Write a graph with one matrix product whose operands are quantized to an element type."""
    fp16 = onnx.TensorProto.FLOAT16
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"]),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", fp16, (4, 32))],
        [helper.make_tensor_value_info("y", fp16, (4, 16))],
        [
            helper.make_tensor("w", element_type, (32, 16), [1.0] * 512),
            helper.make_tensor("s", fp16, (), [0.1]),
            helper.make_tensor("z", element_type, (), [0.0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
    onnx.save(model, path)
    return path


def fake_engines(folder: Path, manifest: Manifest, **changes: Any) -> Path:
    """Write a directory of engines that no device would run, and every check but that would pass.

    Args:
        folder: To make.
        manifest: Of the bundle they are said to be of.
        changes: Fields of `EnginesManifest` that are to be wrong.
    """
    folder.mkdir(parents=True)
    entries = {}
    for graph in manifest.graphs:
        content = f"engine of {graph}".encode()
        (folder / f"{graph}.engine").write_bytes(content)
        rows = RowsProfile(rows_min=120, rows_opt=568, rows_max=568)
        entries[graph] = EngineEntry(
            graph=graph,
            file=f"{graph}.engine",
            num_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            graph_sha256=graph_hash(manifest, graph),
            key=hashlib.sha256(graph.encode()).hexdigest(),
            profiles=(rows,) if graph in ("cache_update", "action_step") else (),
            audit=AuditEntry(
                source="network",
                gemm_weight_bytes={"FLOAT": 300, "HALF": 100},
                num_memory_writes=0,
                bytes_per_write=0,
                memory_copies=(),
            ),
            build_s=0.5,
        )
    engines = EnginesManifest(
        schema_version=ENGINES_SCHEMA_VERSION,
        contract_hash=manifest.contract_hash,
        precision=manifest.precision,
        backend="tensorrt-rtx",
        backend_version="1.7.1.116",
        target="sm_89",
        recipe=manifest.precision,
        engines=entries,
        parity=None,
        versions={},
    )
    write_engines(folder, msgspec.structs.replace(engines, **changes))
    return folder


def with_parity(folder: Path, engines: EnginesManifest, **changes: Any) -> EnginesManifest:
    """Write a report that vouches for these engines, but for the fields in `changes`."""
    report = b'{"checks": 12}\n'
    (folder / "parity.json").write_bytes(report)
    entry = ParityEntry(
        file="parity.json",
        sha256=hashlib.sha256(report).hexdigest(),
        passed=True,
        engine_sha256s={graph: engine.sha256 for graph, engine in engines.engines.items()},
    )
    made = msgspec.structs.replace(engines, parity=msgspec.structs.replace(entry, **changes))
    write_engines(folder, made)
    return made
