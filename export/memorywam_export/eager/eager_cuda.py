"""The graphs run by torch on a GPU, as they are or compiled: what engines there are held to."""

import functools
from pathlib import Path

import torch

from memorywam_export.eager.compiled import CompiledEngine, set_up_compiler
from memorywam_export.eager.eager import EagerBackend, EagerEngine, backend_of_bundle
from memorywam_export.eager.torch_arrays import TorchArrays
from memorywam_runtime.errors import MissingPartError
from memorywam_runtime.manifest import GraphEntry

__all__ = ["TorchBackend", "compiled_cuda", "eager_cuda"]


class TorchBackend(TorchArrays):
    """Torch on a bundle's own weights, where torch computes; its ONNX files are not read."""

    num_fallbacks = 0
    fallback_reason = ""

    def __init__(
        self, name: str = "eager-cuda", *, device: str = "cuda", is_compiled: bool = False
    ) -> None:
        """Take a device.

        Args:
            name: Of the backend.
            device: Torch's name of it.
            is_compiled: Let torch.compile make kernels, in its default mode, shapes static.

        Raises:
            MissingPartError: this torch sees no such device.
        """
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise MissingPartError(
                f"torch {torch.__version__} sees no CUDA device; expected one: install its driver "
                "and a build of torch for it, or use the backend eager or compile"
            )
        if is_compiled:
            set_up_compiler()
        super().__init__(device)
        self.name = name
        self._is_compiled = is_compiled
        self._of_root: dict[Path, EagerBackend] = {}

    def load(self, path: Path, entry: GraphEntry) -> EagerEngine:
        """Return the module of the graph in this file; the model is read on the first call."""
        root = path.parent.resolve()
        if root not in self._of_root:
            self._of_root[root] = backend_of_bundle(root)
            self._of_root[root].move_to(self.device)
        engine = self._of_root[root].load(path, entry)
        return CompiledEngine(engine) if self._is_compiled else engine


eager_cuda = functools.partial(TorchBackend, "eager-cuda")
compiled_cuda = functools.partial(TorchBackend, "compile-cuda", is_compiled=True)
