"""TensorRT and TensorRT for RTX: the one door to either package, and the backend on top."""

import functools
import importlib
import logging
import mmap
import weakref
from pathlib import Path
from typing import Literal

from memorywam_runtime.backends.cuda import Memory
from memorywam_runtime.backends.device_arrays import DeviceArrays
from memorywam_runtime.backends.trt_engine import TrtEngine, Vendor
from memorywam_runtime.errors import BundleError, MissingPartError
from memorywam_runtime.manifest import GraphEntry

__all__ = ["Flavour", "TrtBackend", "tensorrt", "tensorrt_rtx"]

Flavour = Literal["tensorrt", "tensorrt-rtx"]

_LOG = logging.getLogger("memorywam.tensorrt")
_LEVELS = {
    "INTERNAL_ERROR": logging.CRITICAL,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,  # it tells of every engine and every byte
    "VERBOSE": logging.DEBUG,
}
_PACKAGES = {
    "tensorrt": ("tensorrt", "install TensorRT: JetPack brings it, or NVIDIA's package index"),
    "tensorrt-rtx": ("tensorrt_rtx", "pip install 'memorywam[tensorrt-rtx]'"),
}
"""Flavour to import package and how to get it."""


class TrtBackend(DeviceArrays):
    """TensorRT on one GPU."""

    def __init__(
        self,
        flavour: Flavour = "tensorrt",
        *,
        device: int = 0,
        allow_unverified: bool = False,
        staging_bytes: int = 32 << 20,
    ) -> None:
        """Load the library and take a GPU.

        Args:
            flavour: `tensorrt`, or `tensorrt-rtx`, which compiles kernels on the robot.
            device: The GPU's number.
            allow_unverified: Run engines that no parity report vouches for; who opens a bundle
                asks for it.
            staging_bytes: Pinned host memory for writes.

        Raises:
            MissingPartError: no such flavour, its package or a driver is missing, or no GPU.
        """
        self.library = _library(flavour)
        super().__init__(device, staging_bytes=staging_bytes)
        self.name: str = flavour
        self.version = str(self.library.__version__)
        self.allow_unverified = allow_unverified
        self._messages = _messages(self.library)
        self._runtime = self.library.Runtime(self._messages)
        # Weak: an engine holds its backend, and gigabytes that must go with the last session.
        self._engines: weakref.WeakSet[TrtEngine] = weakref.WeakSet()
        self._scratch_bytes = 0
        self._scratch: Memory | None = None

    @property
    def last_error(self) -> str:
        """What TensorRT complained of last, or nothing."""
        return str(self._messages.last_error)

    def forget_errors(self) -> None:
        """Start to listen for complaints anew."""
        self._messages.last_error = ""

    def load(self, path: Path, entry: GraphEntry) -> TrtEngine:
        """Load one engine and compare its tensors with the manifest's.

        Raises:
            BundleError: not an engine for this GPU and version, or of another graph.
        """
        engine = TrtEngine(self, self._deserialized(path), path, entry)
        self._engines.add(engine)
        self._scratch_bytes = max(self._scratch_bytes, engine.scratch_bytes)
        return engine

    def scratch(self) -> Memory:
        """Return memory for what engines compute in between.

        One for all: on one stream, no two of them run at a time. A larger one is made when a
        larger engine was loaded; contexts made before keep theirs.
        """
        if self._scratch is None or self._scratch.num_bytes < self._scratch_bytes:
            self._scratch = Memory(self._scratch_bytes)
        return self._scratch

    def save_caches(self) -> list[Path]:
        """Write what was compiled on this GPU beside each engine, so that later starts are faster.

        Not for the tick: it writes files. Where none can be, the log says so.

        Returns:
            The files that are new.
        """
        saved = [engine.save_cache() for engine in self._engines]
        return sorted(path for path in saved if path is not None)

    def _deserialized(self, path: Path) -> Vendor:
        """Read an engine, without a second copy of it in memory.

        Raises:
            BundleError: there is none, or it is not for this GPU and version.
        """
        self.forget_errors()
        try:
            with (
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                engine = self._runtime.deserialize_cuda_engine(content)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise BundleError(
                f"{path} cannot be read as an engine: {error}; build the engines again"
            ) from error
        if engine is None:
            raise BundleError(
                f"{self.name} {self.version} cannot load {path.name} on {self.target}: "
                f"{self.last_error or 'it gives no reason'}; expected an engine that was built for "
                "this GPU by this version: build it again here"
            )
        return engine


tensorrt = functools.partial(TrtBackend, "tensorrt")
tensorrt_rtx = functools.partial(TrtBackend, "tensorrt-rtx")


class _Messages:
    """What TensorRT says, handed to logging; the newest error is kept for the exception."""

    last_error = ""

    def log(self, severity: Vendor, msg: str) -> None:
        """Take one message."""
        level = _LEVELS.get(severity.name, logging.INFO)
        if level >= logging.ERROR:
            self.last_error = msg
        _LOG.log(level, "%s", msg)


def _messages(library: Vendor) -> Vendor:
    """Return a logger that the library can call."""
    return type("Messages", (_Messages, library.ILogger), {})()


def _library(flavour: str) -> Vendor:
    """Import a flavour's package.

    Raises:
        MissingPartError: unknown flavour, or its package does not load.
    """
    if flavour not in _PACKAGES:
        raise MissingPartError(
            f"unknown TensorRT flavour '{flavour}'; expected one of {', '.join(_PACKAGES)}"
        )
    package, remedy = _PACKAGES[flavour]
    try:
        return importlib.import_module(package)
    except (ImportError, OSError, RuntimeError) as error:  # its own loader raises any of them
        raise MissingPartError(
            f"backend '{flavour}' expects the package {package}, which does not load: {error}; "
            f"{remedy}"
        ) from error
