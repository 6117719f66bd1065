"""Images as files: RGB arrays to PNG and back, bit for bit, and nothing absurd decoded."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memorywam_runtime.errors import InputError

__all__ = ["MAX_IMAGE_PIXELS", "image_from_bytes", "png_from_image"]

MAX_IMAGE_PIXELS = 1 << 26
"""Of one image: 8192 by 8192. More is refused before it is decoded."""

_COMPRESS_LEVEL = 1
"""zlib's fastest: 52 ms in place of 73 for a noisy image of 640 by 480, in a file 15 % larger."""


def png_from_image(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB image [rows, columns, 3] as a PNG file, without loss.

    Raises:
        InputError: another shape or type, or more pixels than can be read back.
    """
    shape = image.shape
    if image.dtype != np.uint8 or image.ndim != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(
            f"found an image {image.dtype} {list(shape)}; expected uint8 [rows, columns, 3]"
        )
    if shape[0] * shape[1] > MAX_IMAGE_PIXELS:
        raise InputError(
            f"found an image of {shape[0]} x {shape[1]} pixels; expected at most "
            f"{MAX_IMAGE_PIXELS:,}: make it smaller before it is recorded"
        )
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def image_from_bytes(
    content: bytes, what: str, *, max_pixels: int = MAX_IMAGE_PIXELS
) -> NDArray[np.uint8]:
    """Return the RGB image [rows, columns, 3] in a PNG or JPEG file.

    Args:
        content: The file.
        what: Names it in an error.
        max_pixels: More is refused before it is decoded.

    Raises:
        InputError: no such file, a damaged one, one that is not RGB, or one that is too large.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            _check_picture(picture, what, max_pixels)
            return np.asarray(picture)
    except InputError:
        raise
    # In a damaged file the decoders stumble over anything: a length, a chunk, a table.
    except Exception as error:
        raise InputError(
            f"{what}: found {len(content)} bytes that are no PNG or JPEG image ({error}); the "
            "file is damaged or of another kind"
        ) from error


def _check_picture(picture: Image.Image, what: str, max_pixels: int) -> None:
    """Refuse a picture by its header, before its pixels are decoded."""
    columns, rows = picture.size
    if rows * columns > max_pixels:
        raise InputError(
            f"{what}: found {rows} x {columns} pixels; expected at most {max_pixels:,}"
        )
    if picture.mode != "RGB":
        raise InputError(
            f"{what}: found an image of mode {picture.mode}; expected RGB, 8 bits a colour"
        )
