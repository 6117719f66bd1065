"""Weights on disk: written as a stream, read by the format's own library."""

import json
import random
import struct
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memorywam_export.checkpoints.weights import (
    TORCH_DTYPES,
    Weight,
    random_weights,
    weight_spans,
    write_weights,
)
from memorywam_runtime.errors import CheckpointError

SHAPES = {
    "b.matrix": (3, 5),
    "a.conv": (2, 3, 1, 2, 2),
    "c.scalar": (),
    "d.none": (0, 7),
    "norm3.weight": (4,),
    "Ünïcode 名": (2,),
}


def weights_of(tensors):
    return [Weight(n, tuple(t.shape), t.dtype, partial(torch.clone, t)) for n, t in tensors.items()]


def tensors(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in SHAPES.items()}


@pytest.mark.parametrize("dtype", TORCH_DTYPES.values(), ids=str)
def test_what_is_written_is_what_the_library_reads(tmp_path, dtype):
    path, wanted = tmp_path / "w.safetensors", tensors(dtype)
    write_weights(path, weights_of(wanted))
    found = load_file(path)
    assert set(found) == set(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=6).filter(lambda s: s != "__metadata__"),
        st.lists(st.integers(0, 4), max_size=3).map(tuple),
        max_size=6,
    ),
    dtype=st.sampled_from(list(TORCH_DTYPES.values())),
)
def test_any_names_and_shapes_are_written(tmp_path_factory, shapes, dtype):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    wanted = {name: torch.ones(shape, dtype=dtype) for name, shape in shapes.items()}
    write_weights(path, weights_of(wanted))
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(shapes)
        for name, tensor in wanted.items():
            assert torch.equal(file.get_tensor(name), tensor)
    assert {name: span.shape for name, span in weight_spans(path).items()} == shapes


def test_the_same_weights_give_the_same_bytes_in_any_order(tmp_path):
    weights = weights_of(tensors(torch.float32))
    contents = set()
    for attempt in range(3):
        random.Random(attempt).shuffle(weights)
        write_weights(tmp_path / "w", weights)
        contents.add((tmp_path / "w").read_bytes())
    assert len(contents) == 1


def test_spans_point_at_the_bytes(tmp_path):
    path, wanted = tmp_path / "w.safetensors", tensors(torch.float32)
    write_weights(path, weights_of(wanted))
    content = path.read_bytes()
    spans = weight_spans(path)
    assert set(spans) == set(wanted)
    for name, span in spans.items():
        bytes_ = content[span.offset : span.offset + span.num_bytes]
        assert bytes_ == wanted[name].numpy().tobytes()
        assert span.dtype == torch.float32
        assert span.shape == tuple(wanted[name].shape)
    assert min(span.offset for span in spans.values()) % 4096 == 0


def test_spans_of_a_file_that_the_library_wrote(tmp_path):
    path, wanted = tmp_path / "w.safetensors", tensors(torch.float16)
    save_file(wanted, path, metadata={"format": "pt"})
    content = path.read_bytes()
    for name, span in weight_spans(path).items():
        found = np.frombuffer(content, np.float16, span.num_bytes // 2, span.offset)
        np.testing.assert_array_equal(found, wanted[name].numpy().ravel())


def test_tensors_that_are_not_contiguous_are_written_as_they_look(tmp_path):
    tensor = torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)[1:]
    write_weights(tmp_path / "w", weights_of({"a": tensor}))
    assert torch.equal(load_file(tmp_path / "w")["a"], tensor)


def test_only_one_tensor_is_held_at_a_time(tmp_path):
    made, most = [], 0

    def load():
        nonlocal most
        tensor = torch.zeros(8)
        made.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in made))
        return tensor

    write_weights(tmp_path / "w", [Weight(f"{i}", (8,), torch.float32, load) for i in range(20)])
    assert len(made) == 20
    assert most == 1


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(3), r"'bad': found torch.float32 \[3\]; expected torch.float32 \[2\]"),
        (torch.zeros(2, dtype=torch.float64), r"'bad': found torch.float64 \[2\]; expected"),
    ],
)
def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path, tensor, message):
    weights = [Weight("bad", (2,), torch.float32, lambda: tensor)]
    with pytest.raises(CheckpointError, match=message):
        write_weights(tmp_path / "w", weights)


def damaged(content):
    """Yield damaged copies of a file, each with what was done."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    data = content[8 + size :]

    def with_header(value):
        text = json.dumps(value).encode()
        return struct.pack("<Q", len(text)) + text + data

    yield "empty", b""
    yield "3 bytes", content[:3]
    yield "half a header", content[: 8 + size // 2]
    yield "no data", content[: 8 + size]
    yield "one byte short", content[:-1]
    yield "one byte more", content + b"\0"
    yield "header too long", struct.pack("<Q", 2**60) + content[8:]
    yield "header is no JSON", content[:8] + b"?" * size + data
    yield "header is a list", with_header([1])
    yield "header is a number", with_header(1)
    name = next(iter(header))
    yield "no offsets", with_header({**header, name: {"dtype": "F32", "shape": [1]}})
    yield (
        "offsets beyond",
        with_header({**header, name: {**header[name], "data_offsets": [0, 10**9]}}),
    )
    yield (
        "offsets backwards",
        with_header(
            {**header, name: {**header[name], "data_offsets": header[name]["data_offsets"][::-1]}}
        ),
    )
    yield "integers", with_header({**header, name: {**header[name], "dtype": "I32"}})
    yield "shape too large", with_header({**header, name: {**header[name], "shape": [99]}})


def test_a_damaged_file_is_refused_whatever_the_damage(tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, weights_of({"a": torch.arange(6.0), "b": torch.ones(2, 2)}))
    weight_spans(path)
    for what, content in damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a whole safetensors file: "):
            weight_spans(path)
            pytest.fail(what)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file: "):
        weight_spans(tmp_path / "nowhere")


def made(shapes, seed=0, dtype=torch.float32):
    return {w.name: w.load() for w in random_weights(shapes, dtype, seed)}


def test_random_weights_do_not_depend_on_order():
    shapes = list(SHAPES.items())
    wanted = made(shapes)
    found = made(shapes[::-1])
    assert set(found) == set(wanted)
    backwards = {w.name: w for w in random_weights(shapes, torch.float32, 0)}
    for name in reversed(list(backwards)):
        assert torch.equal(found[name], wanted[name])
        assert torch.equal(backwards[name].load(), wanted[name])
        assert torch.equal(backwards[name].load(), wanted[name])  # and once more


def test_random_weights_depend_on_the_seed_and_on_the_place():
    shapes = {"a.weight": (8, 8), "b.weight": (8, 8)}.items()
    first, second = made(shapes, 0), made(shapes, 1)
    assert not torch.equal(first["a.weight"], second["a.weight"])
    assert not torch.equal(first["a.weight"], first["b.weight"])


def test_random_weights_keep_activations_near_1():
    shapes = {"w.weight": (256, 512), "w.bias": (512,), "norm_q.weight": (512,), "gamma": (512,)}
    found = made(shapes.items())
    assert abs(found["w.weight"].var().item() * 512 - 1) < 0.02
    assert found["w.bias"].abs().max() <= 0.1
    for name in ("norm_q.weight", "gamma"):
        assert (found[name] - 1).abs().max() <= 0.1
    assert all(t.isfinite().all() for t in found.values())


def test_random_weights_of_another_type_are_the_same_values_rounded():
    shapes = {"w": (16, 16)}.items()
    wanted = made(shapes)["w"]
    for dtype in TORCH_DTYPES.values():
        assert torch.equal(made(shapes, dtype=dtype)["w"], wanted.to(dtype))
