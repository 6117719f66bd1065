"""Camera images to the model's input, byte for byte."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from memorywam_runtime.contract import Observations
from memorywam_runtime.errors import InputError
from memorywam_runtime.transforms import mosaic_from_images, pixels_from_mosaics

GOLDEN = json.loads((Path(__file__).parents[1] / "assets" / "mosaics.json").read_bytes())
VIEWS = {
    "wrists_top": Observations(),
    "head_top": Observations(mosaic="head_top_wrists_bottom"),
    "single": Observations(mosaic="single", cameras=("head",), height=256, width=352),
    "enlarged": Observations(mosaic="single", cameras=("head",), height=720, width=960),
}


def picture(rows, columns, seed):
    """Return an image by formula: edges, ramps and texture, the same on every machine."""
    y, x, channel = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(3), indexing="ij")
    texture = (x * x * 7 + y * y * 13 + x * y * 3 + channel * 59 + seed * 101) % 251
    edges = 255 * (((x // 37) + (y // 23) + channel) % 2)
    return np.where((x + y) % 5 < 2, texture, edges).astype(np.uint8)


def images(views):
    """Return pictures of three real sizes: 640 x 480 and, for the wrists, 424 x 240."""
    sizes = {"left_wrist": (240, 424), "right_wrist": (240, 424), "head": (480, 640)}
    return {name: picture(*sizes[name], i) for i, name in enumerate(views.cameras)}


def facts(mosaic):
    """Return what is committed of a mosaic."""
    height, width, _ = mosaic.shape
    places = [(0, 0), (height // 3, width // 2), (height // 2, width - 1), (height - 1, width // 3)]
    return {
        "shape": list(mosaic.shape),
        "sha256": hashlib.sha256(mosaic.tobytes()).hexdigest(),
        "pixels": [[*place, *mosaic[place].tolist()] for place in places],
    }


@pytest.mark.parametrize("name", VIEWS)
def test_mosaics_are_the_golden_ones(name):
    """The training data was resized by these very bytes; a Pillow that differs must be noticed."""
    views = VIEWS[name]
    mosaic = mosaic_from_images(images(views), views)
    assert mosaic.dtype == np.uint8
    assert facts(mosaic) == GOLDEN[name]


@pytest.mark.parametrize("name", VIEWS)
def test_no_pixel_is_left_out(name):
    views = VIEWS[name]
    white = {camera: np.full((9, 7, 3), 255, np.uint8) for camera in views.cameras}
    assert (mosaic_from_images(white, views) == 255).all()


def flat(**levels):
    return {name: np.full((4, 4, 3), level, np.uint8) for name, level in levels.items()}


def test_wrists_stand_above_the_head_as_memorywam_was_trained():
    mosaic = mosaic_from_images(flat(left_wrist=1, right_wrist=2, head=3), VIEWS["wrists_top"])
    assert mosaic.shape == (384, 320, 3)
    assert (mosaic[:128, :160] == 1).all()
    assert (mosaic[:128, 160:] == 2).all()
    assert (mosaic[128:] == 3).all()


def test_the_head_stands_above_the_wrists_as_fastwam_was_trained():
    mosaic = mosaic_from_images(flat(left_wrist=1, right_wrist=2, head=3), VIEWS["head_top"])
    assert (mosaic[:256] == 3).all()
    assert (mosaic[256:, :160] == 1).all()
    assert (mosaic[256:, 160:] == 2).all()


def test_the_order_of_the_dictionary_does_not_count():
    given = images(VIEWS["wrists_top"])
    backwards = dict(reversed(given.items()))
    first, second = (mosaic_from_images(i, VIEWS["wrists_top"]) for i in (given, backwards))
    np.testing.assert_array_equal(first, second)


def test_an_image_of_the_right_size_is_not_touched():
    image = picture(256, 352, 5)
    mosaic = mosaic_from_images({"head": image}, VIEWS["single"])
    np.testing.assert_array_equal(mosaic, image)
    assert not np.shares_memory(mosaic, image)


def test_resizing_is_pillows_antialiased_bilinear_filter():
    image = picture(480, 640, 1)
    mosaic = mosaic_from_images({"head": image}, VIEWS["single"])
    wanted = Image.fromarray(image).resize((352, 256), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(mosaic, np.asarray(wanted))
    nearest = Image.fromarray(image).resize((352, 256), Image.Resampling.NEAREST)
    assert np.abs(mosaic.astype(int) - np.asarray(nearest)).max() > 30


def test_views_of_larger_arrays_are_read_as_they_look():
    """A camera driver may hand out flipped, cropped or channel-swapped views without copying."""
    whole = picture(300, 400, 2)
    for view in (whole[::-1, ::-1], whole[7:290, 3:-5], whole[:, :, ::-1], whole[::2]):
        for views in (VIEWS["single"], VIEWS["enlarged"]):
            np.testing.assert_array_equal(
                mosaic_from_images({"head": view}, views),
                mosaic_from_images({"head": np.ascontiguousarray(view)}, views),
            )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, r"\[\]"),
        (flat(head=1), r"\['head'\]"),
        (flat(left_wrist=1, right_wrist=2, head=3, tail=4), "tail"),
        (flat(left=1, right_wrist=2, head=3), "left"),
    ],
)
def test_cameras_missing_or_left_over_are_listed(given, found):
    message = rf"{found}.*; expected exactly the cameras \['left_wrist', 'right_wrist', 'head'\]"
    with pytest.raises(InputError, match=f"^found images of .*{message}$"):
        mosaic_from_images(given, VIEWS["wrists_top"])


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((4, 4, 3), np.uint16), r"uint16 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \[3, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"uint8 \[1, 4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_images_of_another_type_or_shape_are_refused(image, found):
    given = flat(left_wrist=1, right_wrist=2) | {"head": image}
    with pytest.raises(
        InputError, match=rf"^camera 'head': found {found}; expected uint8 \[rows, columns, 3\]"
    ):
        mosaic_from_images(given, VIEWS["wrists_top"])


def test_pixels_fill_exactly_minus_1_to_1():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = pixels_from_mosaics(levels)
    assert pixels.shape == (1, 3, 1, 16, 16)
    assert pixels.dtype == np.float32
    assert pixels.min() == -1.0
    assert pixels.max() == 1.0
    assert pixels.flags.c_contiguous
    # As upstream: RGB / 127.5 - 1, in float32.
    wanted = np.arange(256, dtype=np.float32) / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(pixels[0, 0, 0].ravel(), wanted)
    assert (np.diff(wanted) > 0).all()


def test_pixels_keep_time_rows_columns_and_colours_apart():
    mosaics = np.zeros((4, 5, 6, 3), np.uint8)
    mosaics[2, 3, 4, 1] = 255
    pixels = pixels_from_mosaics(mosaics)
    assert pixels.shape == (1, 3, 4, 5, 6)
    assert np.argwhere(pixels == 1).tolist() == [[0, 1, 2, 3, 4]]
