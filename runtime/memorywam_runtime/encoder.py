"""Images to the latent frame: what the encoder takes next, what it has seen, where its past is."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Array
from memorywam_runtime.buffers import Buffers
from memorywam_runtime.calls import Calls
from memorywam_runtime.errors import InputError
from memorywam_runtime.manifest import Manifest
from memorywam_runtime.tensors import TensorSpec

__all__ = ["Encoder"]


class Encoder:
    """Takes the images of the next frame, and says which path through the graphs completes it.

    Where the bundle has the graphs for it, each image but the last is encoded as it is fed; else
    images wait on the host. Either way what earlier frames left stays as it is until the last
    path has run: a group is complete, or it has never been.
    """

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
        self.num_seen = 0
        """Images of the next frame that have been fed."""
        # Held here: rebinding to another bucket makes inputs anew, and images wait in this one.
        self._first = calls.input("vae_first", "image")
        self._images = self._first
        if calls.early:
            self._images = calls.input("vae_image", "image")
        elif not self.is_single:
            self._images = calls.input("vae_step", "images")

    def reset(self, turn: int = 0) -> None:
        """Start a new episode, or go on from a snapshot."""
        self.turn = turn
        self.num_seen = 0

    def forget_seen(self) -> None:
        """Drop the images of an incomplete group; what earlier frames left was not touched."""
        self.num_seen = 0

    def num_needed(self, num_frames: int) -> int:
        """Return how many images make the next frame: one at first, then a whole group."""
        return 1 if self._is_first(num_frames) else self._manifest.contract.images_per_frame

    @property
    def image_spec(self) -> TensorSpec:
        """Return what one image is."""
        return self._first.spec

    def missing_spec(self, num_frames: int) -> TensorSpec:
        """Return what the next frame still takes: all of its images, or the rest of them.

        Raises:
            InputError: it has them all.
        """
        needed = self.num_needed(num_frames)
        if self.num_seen == needed:
            raise InputError(
                f"found more images than frame {num_frames} takes; expected {needed}, which were "
                "all seen: complete the frame without images, or forget those seen"
            )
        if needed == 1:
            return self._first.spec
        batch, colours, _, height, width = self._first.spec.fixed_shape
        return msgspec.structs.replace(
            self._first.spec,
            name="images",
            shape=(batch, colours, needed - self.num_seen, height, width),
        )

    def check_complete(self, num_frames: int) -> None:
        """Refuse a frame whose images were not all seen.

        Raises:
            InputError: saying how many are missing.
        """
        needed = self.num_needed(num_frames)
        if self.num_seen != needed:
            raise InputError(
                f"found {self.num_seen} images; expected {needed}: feed the rest of frame "
                f"{num_frames}, or forget those seen"
            )

    def check_between(self, num_frames: int) -> None:
        """Refuse to stop in the middle of a group.

        Raises:
            InputError: some of its images were seen.
        """
        if self.num_seen:
            raise InputError(
                f"found {self.num_seen} images of frame {num_frames} seen; expected none: a "
                "snapshot is taken between frames: remember this one, or forget those seen"
            )

    def feed(self, images: NDArray[np.floating], num_frames: int) -> None:
        """Take images [1, 3, T, H, W] of the next frame; encode each that is not its last.

        Args:
            images: Checked against `missing_spec`; as many or fewer.
            num_frames: Frames before this one.
        """
        is_first, num_images = self._is_first(num_frames), images.shape[2]
        if is_first:
            self._first.put(images)
        elif self._calls.early:
            for index in range(num_images):
                self._feed_one(images[:, :, index : index + 1])
            return
        elif num_images == self.num_needed(num_frames):
            self._images.put(images)
        else:
            end = self.num_seen + num_images
            self._images.host[:, :, self.num_seen : end] = images
            if end == self.num_needed(num_frames):
                self._images.send()
        self.num_seen += num_images

    def path(self, num_frames: int) -> str:
        """Return the path that completes the frame, all of whose images are there."""
        if self._is_first(num_frames):
            return "first"
        if self.is_windowed and not self._calls.early:
            self._start_window()
        return f"step{self.turn}"

    def encoded(self, path: str) -> None:
        """Note that a path has run: its caches are now the current ones."""
        if self.is_windowed:  # its caches are no state: each group makes them anew
            images = self._first if path == "first" else self._images
            newest = self._calls.backend.read(images.array)[:, :, -1:]
            self._calls.backend.write(self._last, np.ascontiguousarray(newest))
        else:
            self.turn = 1 if path == "step0" else 0
        self.num_seen = 0

    def state_arrays(self) -> dict[str, tuple[TensorSpec, Array]]:
        """Return spec and tensor of all that outlives a frame, by name."""
        if self.is_windowed:
            return {"last_image": (self._first.spec, self._last)}
        kept: dict[str, tuple[TensorSpec, Any]] = {}
        turning = self._turning
        for spec in self._manifest.graphs["vae_first"].outputs:
            head, _, tail = spec.name.partition(".")
            if head == "cache_out":
                turn = self.turn if f"cache.{tail}" in turning else 0
                array = self._buffers.fixed(spec, name=f"vae_cache{turn}.{tail}")
                kept[f"vae_cache.{tail}"] = (spec, array)
        return kept

    def _feed_one(self, image: NDArray[np.floating]) -> None:
        """Take one image of a group that is encoded as it arrives."""
        if self.is_windowed and self.num_seen == 0:
            self._start_window()
        np.copyto(self._images.host, image)
        self._images.send()
        if self.num_seen < len(self._calls.early):
            self._calls.early[self.num_seen]()
        self.num_seen += 1

    def _start_window(self) -> None:
        """Let the group begin with the last image before it."""
        self._first.put(self._calls.backend.read(self._last))

    @property
    def _turning(self) -> set[str]:
        """The feature caches that take turns; the others always come back to set 0."""
        if self.is_single:
            return set()
        graph = "vae_group" if self._calls.early else "vae_step"
        return {spec.name for spec in self._manifest.graphs[graph].inputs}

    @property
    def _last(self) -> Array:
        """The newest image, with which a windowed encoder starts the next group."""
        return self._buffers.fixed(self._first.spec, name="last_image")

    def _is_first(self, num_frames: int) -> bool:
        """Is the next frame encoded by itself?"""
        return num_frames == 0 or self.is_single
