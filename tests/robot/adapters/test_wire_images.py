"""Images on the wire as PNG or JPEG files: the same bits, or refused before they cost anything."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.fakes.policy_server import connected, joints, pictures, served, talk

from memorywam_robot.adapters.dialects import PolicyService
from memorywam_robot.adapters.dialects_observation import ObservationReader, image_from_value
from memorywam_robot.adapters.serving import DialectOptions
from memorywam_runtime.errors import InputError
from memorywam_runtime.images import png_from_image

pytest.importorskip("websockets", reason="needs the extra memorywam[serve]")


def jpeg(image, mode="RGB"):
    buffer = io.BytesIO()
    Image.fromarray(image).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def asked(link, contract, form, step=0):
    images = {name: form(image) for name, image in pictures(contract, step).items()}
    return talk(link, {"images": images, "state": joints(contract, step), "prompt": "random"})


def flat(**names):
    return {f"observation/{name}": value for name, value in names.items()}


@pytest.mark.parametrize("form", [png_from_image, jpeg])
def test_images_may_come_as_files(served_policy, form):
    found = []
    for one in (np.asarray, form):
        # Another server each: of one, a second episode has other noise.
        with served(PolicyService(served_policy)) as running, connected(running) as link:
            found.append(asked(link, served_policy.contract, one)["actions"])
    assert (found[0].tobytes() == found[1].tobytes()) == (form is png_from_image)
    assert np.isfinite(found[1]).all()


def test_every_bit_of_a_png_and_every_key(served_policy):
    reader = ObservationReader(served_policy.contract, DialectOptions())
    shown = pictures(served_policy.contract, 3)
    files = {name: memoryview(png_from_image(image)) for name, image in shown.items()}
    for message in ({"images": files}, flat(**files)):
        found = reader.images(message)
        assert all(np.array_equal(found[name], image) for name, image in shown.items())


def test_it_is_told_what_an_image_may_be(served_policy):
    assert PolicyService(served_policy).metadata()["image_files"] == ["png", "jpeg"]


def wide_png(columns, rows):
    """Return a few bytes that say they are a large picture."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "no PNG or JPEG"),
        (b"GIF89a" + bytes(60), "no PNG or JPEG"),
        (png_from_image(np.zeros((8, 8, 3), np.uint8))[:-30], "no PNG or JPEG"),
        (jpeg(np.zeros((8, 8, 3), np.uint8), "L"), "mode L"),
        (wide_png(2049, 2048), "expected at most 4,194,304"),
    ],
    ids=["nothing", "gif", "part", "grey", "large"],
)
def test_a_file_that_is_no_image_is_refused(value, expected):
    with pytest.raises(InputError, match=f"image of 'head'.*{expected}"):
        image_from_value(memoryview(value), "head")


def test_the_server_goes_on_after_one(served_policy):
    contract = served_policy.contract
    with served(PolicyService(served_policy)) as running, connected(running) as link:
        refused = asked(link, contract, lambda _: b"nothing")
        assert "no PNG or JPEG" in refused
        assert asked(link, contract, png_from_image)["memory"]["memory_version"] == 1
