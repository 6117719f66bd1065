"""One trace of each graph for all bundles of the same weights: each costs seconds."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from memorywam_export.bisect import bisect_parts, bisect_truth
from memorywam_export.graphs import onnx_writer


def _key(module, spec, opset, *others):
    """Return what a trace depends on: the same modules, tensors and opset give the same."""
    digest = hashlib.sha256(repr((spec, opset, *others)).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.digest()


@pytest.fixture(scope="package", autouse=True)
def traced_once(tmp_path_factory):
    """Have what several tests trace and write anew traced and written by the first of them."""
    traces: dict[bytes, Any] = {}
    unwritten: dict[bytes, Any] = {}
    files: dict[bytes, Path] = {}
    folder = tmp_path_factory.mktemp("fresh")
    trace, write = onnx_writer.exported, onnx_writer.write_onnx

    def exported(module, spec, opset):
        key = _key(module, spec, opset)
        if key not in traces:
            traces[key] = unwritten[key] = trace(module, spec, opset)
        return traces[key]

    def exported_to_write(module, spec, opset):
        # Writing changes the graph of a trace, which nobody reads, and not the trace.
        key = _key(module, spec, opset)
        return unwritten.pop(key) if key in unwritten else trace(module, spec, opset)

    def write_onnx(module, spec, path, *, opset, weights, weights_file):
        key = _key(module, spec, opset, sorted(weights.items()), weights_file)
        if key in files:
            shutil.copyfile(files[key], path)
            return
        write(module, spec, path, opset=opset, weights=weights, weights_file=weights_file)
        files[key] = Path(shutil.copyfile(path, folder / f"{len(files)}.onnx"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bisect_truth, "exported", exported)
        patch.setattr(onnx_writer, "exported", exported_to_write)
        patch.setattr(bisect_parts, "write_onnx", write_onnx)
        yield
