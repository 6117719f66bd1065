"""One trace of each graph for all bundles of the same weights: each costs seconds."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from memorywam_export.bisect import bisect_parts, bisect_truth
from memorywam_export.graphs import onnx_writer


def _key(module, spec, opset, *others):
    """Return what a trace depends on: the same modules, tensors and opset give the same."""
    digest = hashlib.sha256(repr((spec, opset, *others)).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


class Traces:
    """What several tests trace and write anew: traced and written by the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trace = onnx_writer.exported
        self._write = onnx_writer.write_onnx
        self._traces: dict[bytes, Any] = {}
        self._unwritten: dict[bytes, Any] = {}
        self._files: dict[bytes, Path] = {}

    def exported(self, module, spec, opset):
        key = _key(module, spec, opset)
        if key not in self._traces:
            self._traces[key] = self._unwritten[key] = self._trace(module, spec, opset)
        return self._traces[key]

    def exported_to_write(self, module, spec, opset):
        # Writing changes the graph of a trace, which nobody reads, and not the trace.
        key = _key(module, spec, opset)
        kept = self._unwritten.pop(key, None)
        return self._trace(module, spec, opset) if kept is None else kept

    def write_onnx(self, module, spec, path, *, opset, weights, weights_file):
        key = _key(module, spec, opset, sorted(weights.items()), weights_file)
        if key in self._files:
            shutil.copyfile(self._files[key], path)
            return
        self._write(module, spec, path, opset=opset, weights=weights, weights_file=weights_file)
        kept = self._folder / f"{len(self._files)}.onnx"
        self._files[key] = Path(shutil.copyfile(path, kept))


@pytest.fixture(scope="session")
def traces(tmp_path_factory):
    return Traces(tmp_path_factory.mktemp("fresh"))


# Not of the package: a folder without __init__.py is none, and pytest would patch to the end.
@pytest.fixture(scope="module", autouse=True)
def traced_once(traces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bisect_truth, "exported", traces.exported)
        patch.setattr(onnx_writer, "exported", traces.exported_to_write)
        patch.setattr(bisect_parts, "write_onnx", traces.write_onnx)
        yield
