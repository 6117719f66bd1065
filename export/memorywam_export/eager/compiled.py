"""The graphs run by torch.compile, behind the backend protocol: what others are held to."""

import os
import shutil
import sys
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch._dynamo import config

from memorywam_export.eager.eager import BundleBackend, EagerEngine
from memorywam_runtime.errors import MissingPartError
from memorywam_runtime.manifest import GraphEntry

__all__ = ["CompiledBackend", "CompiledEngine", "set_up_compiler"]

_MOST_SHAPES = 64
"""Compilations of one graph: one for each gist bucket. Torch's own limit is 8."""


class CompiledEngine(EagerEngine):
    """One graph module, compiled whole at its first call, and once more for every gist bucket."""

    def __init__(self, engine: EagerEngine) -> None:
        compiled = torch.compile(engine.module, fullgraph=True, dynamic=False)
        super().__init__(cast("nn.Module", compiled), engine.spec)


class CompiledBackend(BundleBackend):
    """Torch on a bundle's own weights, compiled in the default mode, shapes static."""

    name = "compile"

    def __init__(self, num_threads: int = 0) -> None:
        """Make a backend; it sets up torch's compiler in the whole process.

        Args:
            num_threads: Threads of torch, in the whole process; 0 leaves them as they are.

        Raises:
            MissingPartError: no C++ compiler.
        """
        set_up_compiler()
        super().__init__(num_threads)

    def load(self, path: Path, entry: GraphEntry) -> CompiledEngine:
        """Return the graph's module, not compiled yet; the model is read on the first call."""
        return CompiledEngine(super().load(path, entry))


def set_up_compiler() -> None:
    """Set up torch's compiler in the whole process.

    Raises:
        MissingPartError: no C++ compiler.
    """
    _check_compiler()
    # The row to write is a number read from a tensor: without this, every layer would break
    # the graph there.
    config.capture_scalar_outputs = True
    # Beyond the limit torch goes on uncompiled and only warns: an eager arm would be told as
    # a compiled one.
    config.recompile_limit = _MOST_SHAPES
    config.fail_on_recompile_limit_hit = True


def _check_compiler() -> None:
    """Refuse where torch.compile would find no C++ compiler.

    Raises:
        MissingPartError: saying what to install.
    """
    named = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(named) is None:
        raise MissingPartError(
            f"found no C++ compiler '{named}' on PATH; torch.compile {torch.__version__} makes its "
            "kernels with one: install it (on Debian: apt-get install g++), or name another in "
            "the variable CXX"
        )
