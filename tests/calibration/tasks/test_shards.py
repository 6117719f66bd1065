"""Shards: exactly what was counted comes back, and nothing else is taken for it."""

import dataclasses
import hashlib
import zlib
from typing import Any

import msgspec
import numpy as np
import pytest

from memorywam_calibration.episodes.samples import Sample
from memorywam_calibration.replay.activations import Activations
from memorywam_calibration.tasks.shards import (
    Point,
    ShardFolder,
    ShardKey,
    shard_from_bytes,
    shard_to_bytes,
)
from memorywam_runtime.errors import InputError

KEY = ShardKey(
    contract_hash="c" * 64,
    checkpoint_sha256="d" * 64,
    manifest_sha256="e" * 64,
    file_sha256s={"action_step.onnx": "f" * 64},
    recipe="int8",
    seed=0,
    num_denoising_steps=4,
    episode="an episode / with any: name",
    recording_sha256="a" * 64,
    instruction="fold the towel",
    points=(Point(frame=3, seed=1 << 46, part=1), Point(frame=1, seed=7, part=0)),
    num_parts=3,
    cameras={},
    num_threads=1,
    versions={"torch": "2.9.0", "processor": "AVX2"},
    gram_sites=("graph/5|wide:input",),
)


def counted() -> list[Activations]:
    """What an episode of two decision points could have brought, one in each of two parts."""
    rng = np.random.default_rng(0)
    parts = [Activations(KEY.gram_sites) for _ in range(KEY.num_parts)]
    for point in KEY.points:
        part = parts[point.part]
        for channels in (1, 5):
            rows = rng.standard_normal((7, channels)).astype(np.float32)
            part.add(f"graph/{channels}|wide:input", rows, f"step/{point.part:02d}")
        part.flush()
        part.counts["step/00"] += 1
        part.samples.add(Sample(episode=KEY.episode, frame=point.frame, seed=point.seed))
    return parts


SHARD = shard_to_bytes(KEY, counted())


def rehashed(body: bytes) -> bytes:
    """A shard whose hash is right, whatever it holds."""
    return SHARD[:18] + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def test_what_was_counted_comes_back():
    key, parts = shard_from_bytes(SHARD, "here")
    assert key == KEY
    assert [one.to_bytes() for one in parts] == [one.to_bytes() for one in counted()]
    assert shard_to_bytes(key, parts) == SHARD
    merged = [one.merged(Activations()).to_bytes() for one in parts]
    assert merged == [one.to_bytes() for one in counted()]


def test_what_comes_back_counts_on():
    _, (first, *_) = shard_from_bytes(SHARD, "here")
    before = first.sites["graph/5|wide:input"].num_rows
    assert list(first.grams) == list(KEY.gram_sites)
    first.add("graph/5|wide:input", np.ones((2, 5), np.float32), "step/00")
    first.flush()
    assert first.sites["graph/5|wide:input"].num_rows == before + 2
    assert first.grams["graph/5|wide:input"].num_rows == before + 2


@pytest.mark.parametrize("place", [0, 17, 18, 40, 82, 83, 90, len(SHARD) // 2, len(SHARD) - 1])
def test_one_bit_is_enough_to_refuse_it(place):
    damaged = bytearray(SHARD)
    damaged[place] ^= 1
    with pytest.raises(InputError, match="here: its hash is not that of its content"):
        shard_from_bytes(bytes(damaged), "here")


@pytest.mark.parametrize("length", [0, 5, 83, len(SHARD) // 2, len(SHARD) - 1])
def test_a_part_of_it_is_refused(length):
    with pytest.raises(InputError, match="its hash is not that of its content"):
        shard_from_bytes(SHARD[:length], "here")


@pytest.mark.parametrize(
    "body",
    [b"", b"no zlib", zlib.compress(b""), zlib.compress(b"no safetensors"),
     zlib.compress(b"\x02\0\0\0\0\0\0\0{}")],
)  # fmt: skip
def test_another_content_is_refused_even_with_its_hash(body):
    with pytest.raises(InputError, match="here: no statistics that this release reads"):
        shard_from_bytes(rehashed(body), "here")


def test_parts_that_are_not_the_keys_are_refused():
    for parts in (counted()[:2], [*counted()[:1], Activations(), Activations()]):
        with pytest.raises(InputError, match="other decision points, or other parts"):
            shard_from_bytes(shard_to_bytes(KEY, parts), "here")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda site: setattr(site, "num_rows", site.num_rows + 1), "whose histogram counts"),
        (lambda site: site.peaks.update(step=-1.0), "and peaks of 0 to"),
        (lambda site: setattr(site, "histogram", site.histogram[:-1]), "whose histogram is"),
        (lambda site: setattr(site, "histogram", site.histogram.astype(float)), "is float64"),
        (lambda site: setattr(site, "more", np.zeros(3)), "another release made them"),
        (lambda site: delattr(site, "peaks"), "another release made them"),
        (lambda site: setattr(site, "num_channels", True), "statistics of True channels"),
        (lambda site: setattr(site, "num_rows", "7"), "another type"),
    ],
)
def test_statistics_that_no_counting_gives_are_refused(change, complaint):
    parts = counted()
    change(parts[1].sites["graph/5|wide:input"])
    with pytest.raises(InputError, match=complaint):
        shard_from_bytes(shard_to_bytes(KEY, parts), "here")


def test_products_of_channels_that_no_counting_gives_are_refused():
    parts = counted()
    parts[0].grams["graph/1|wide:input"] = parts[1].grams["graph/5|wide:input"]
    with pytest.raises(InputError, match=r"found sums of products int64 \[7, 5, 5\]"):
        shard_from_bytes(shard_to_bytes(KEY, parts), "here")
    parts = counted()
    parts[0].grams = parts[1].grams
    with pytest.raises(InputError, match="not of the rows that were counted"):
        shard_from_bytes(shard_to_bytes(KEY, parts), "here")


def test_a_folder_keeps_them_by_episode(tmp_path):
    folder = ShardFolder.beside(tmp_path / "table.json")
    assert folder.read(KEY) is None
    folder.refuse_left_over()
    folder.write(KEY, SHARD)
    with pytest.raises(InputError, match="holds 1 episodes of a calibration that was interrupted"):
        folder.refuse_left_over()
    parts = folder.read(KEY)
    assert parts is not None
    assert [one.to_bytes() for one in parts] == [one.to_bytes() for one in counted()]
    assert folder.read(msgspec.structs.replace(KEY, episode="another")) is None
    folder.remove()
    assert not folder.path.exists()
    folder.remove()


OTHERS: list[dict[str, Any]] = [
    {"contract_hash": "0"},
    {"checkpoint_sha256": "0"},
    {"manifest_sha256": "0"},
    {"file_sha256s": {}},
    {"recipe": "int4"},
    {"seed": 1},
    {"num_denoising_steps": 5},
    {"recording_sha256": "0"},
    {"instruction": "wave"},
    {"points": KEY.points[:1]},
    {"num_parts": 2},
    {"cameras": {"a": "b"}},
    {"num_threads": 2},
    {"versions": {}},
    {"gram_sites": ()},
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_shard_of_another_key_is_not_taken(other, tmp_path):
    folder = ShardFolder(tmp_path / "shards")
    folder.write(KEY, SHARD)
    (name,) = other
    with pytest.raises(InputError, match=f"with any: name: made with another {name}$"):
        folder.read(msgspec.structs.replace(KEY, **other))


def test_every_field_of_a_key_is_tried_above():
    tried = {name for one in OTHERS for name in one} | {"episode"}
    assert tried == {field.name for field in msgspec.structs.fields(ShardKey)}


def test_what_is_not_its_own_stays(tmp_path):
    folder = ShardFolder(tmp_path / "shards")
    folder.write(KEY, SHARD)
    (folder.path / ".0.shard.0a.draft").write_bytes(b"cut off")
    (folder.path / "notes.txt").write_text("mine")
    folder.remove()
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]


def test_nothing_of_a_sample_is_lost():
    assert {field.name for field in dataclasses.fields(Sample)} == {"episode", "frame", "seed"}
