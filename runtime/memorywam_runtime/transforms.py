"""Camera images to the pixels that the model takes: one mosaic, resized as in its training."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memorywam_runtime.contract import Observations
from memorywam_runtime.errors import InputError

__all__ = ["mosaic_from_images", "pixels_from_mosaics"]


def mosaic_from_images(
    images: Mapping[str, NDArray[np.uint8]], views: Observations
) -> NDArray[np.uint8]:
    """Return the mosaic [height, width, 3] uint8 that the model was trained on.

    Each image is resized with Pillow's antialiased bilinear filter, as FastWAM and MemoryWAM do
    when deployed; other filters differ by up to tens of grey levels.

    Args:
        images: Camera name to RGB image [rows, columns, 3] uint8.
        views: Cameras in mosaic order, and the mosaic's size.

    Raises:
        InputError: a camera is missing or left over, or an image has another shape or type.
    """
    if set(images) != set(views.cameras):
        raise InputError(
            f"found images of {sorted(images)}; expected exactly the cameras {list(views.cameras)}"
        )
    for name, image in images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(
                f"camera '{name}': found {image.dtype} {list(image.shape)}; "
                "expected uint8 [rows, columns, 3] in RGB order"
            )
    mosaic = np.empty((views.height, views.width, 3), np.uint8)
    for name, (top, left, height, width) in zip(views.cameras, _tiles(views), strict=True):
        mosaic[top : top + height, left : left + width] = _resized(images[name], height, width)
    return mosaic


def pixels_from_mosaics(mosaics: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return [1, 3, T, H, W] float32 in [-1, 1] of mosaics [T, H, W, 3] uint8."""
    pixels = mosaics.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)[None])


def _tiles(views: Observations) -> list[tuple[int, int, int, int]]:
    """Return (top, left, height, width) of each camera's place, in the order of the cameras."""
    height, width = views.height, views.width
    if views.mosaic == "single":
        return [(0, 0, height, width)]
    third, half = height // 3, width // 2
    wrists_top = views.mosaic == "wrists_top_head_bottom"
    wrist_row, head_row = (0, third) if wrists_top else (height - third, 0)
    return [
        (wrist_row, 0, third, half),
        (wrist_row, half, third, half),
        (head_row, 0, height - third, width),
    ]


def _resized(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return the image at [height, width, 3]; unchanged if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized)
