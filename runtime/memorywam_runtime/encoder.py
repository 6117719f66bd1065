"""Images to the latent frame: what the encoder takes next, and where its past is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Array
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.calls import Calls
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.tensors import TensorSpec, storage_dtype

__all__ = ["Encoder"]


class Encoder:
    """Loads images for the next update and says which path through the graphs encodes them."""

    def __init__(self, manifest: Manifest, buffers: Buffers, calls: Calls) -> None:
        self._manifest = manifest
        self._buffers = buffers
        self._calls = calls
        history = manifest.contract.conventions.vae_history
        self.is_single = history == "single_frame"
        """Each observation stands alone: every frame is a first one."""
        self.is_windowed = history == "windowed"
        """Each group is encoded afresh, after the last image before it."""
        self.turn = 0
        """Which of the two sets of feature caches is current."""

    def reset(self) -> None:
        """Start a new episode."""
        self.turn = 0

    def images_spec(self, num_frames: int) -> TensorSpec:
        """Return what the next update takes: one image at first, then a whole group."""
        first = self._is_first(num_frames)
        graph, name = ("vae_first", "image") if first else ("vae_step", "images")
        specs = self._manifest.graphs[graph].inputs
        return next(spec for spec in specs if spec.name == name)

    def load(self, pixels: NDArray[np.floating], num_frames: int) -> str:
        """Write images [1, 3, T, H, W] to their graph; return the path that encodes them."""
        if self._is_first(num_frames):
            self._calls.input("vae_first", "image").put(pixels)
            path = "first"
        else:
            path = f"step{self.turn}"
            if self.is_windowed:
                self._calls.input("vae_first", "image").put(self._calls.backend.read(self._last))
                path = "window"
            self._calls.input("vae_step", "images").put(pixels)
        if self.is_windowed:
            newest = np.ascontiguousarray(pixels[:, :, -1:], storage_dtype(self._image_spec.dtype))
            self._calls.backend.write(self._last, newest)
        return path

    def encoded(self, path: str) -> None:
        """Note that a path has run: its caches are now the current ones."""
        self.turn = {"first": 0, "step0": 1, "step1": 0, "window": 1}[path]

    def state_arrays(self) -> dict[str, tuple[TensorSpec, Array]]:
        """Return spec and tensor of all that outlives a call, by name."""
        kept: dict[str, tuple[TensorSpec, Any]] = {}
        for spec in self._manifest.graphs["vae_first"].outputs:
            head, _, tail = spec.name.partition(".")
            if head == "cache_out":
                name = f"vae_cache{self.turn}.{tail}"
                kept[f"vae_cache.{tail}"] = (spec, self._buffers.fixed(spec, name=name))
        if self.is_windowed:
            kept["last_image"] = (self._image_spec, self._last)
        return kept

    @property
    def _image_spec(self) -> TensorSpec:
        """The spec of one mosaic."""
        return self._manifest.graphs["vae_first"].inputs[0]

    @property
    def _last(self) -> Array:
        """The newest image, with which a windowed encoder starts the next group."""
        return self._buffers.fixed(self._image_spec, name="last_image")

    def _is_first(self, num_frames: int) -> bool:
        """Is the next frame encoded by itself?"""
        return num_frames == 0 or self.is_single
